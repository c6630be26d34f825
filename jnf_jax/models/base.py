"""The contract of a model: pure functions on parameters, and the stages in which these are trained.

A model file exports `Config` and `build(config, specs) -> Model`. Training sees stages, evaluation sees these functions; neither knows
which model it holds.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import compiling, configs, types
from jnf_jax import specs as specs_lib

Metrics = dict[str, types.Array]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
      name: of the stage, in files and tables.
      trainable: top-level entries of params that this stage owns; nothing else is differentiated or changed.
      loss: (params, key, batch) -> (scalar, metrics), the mean over the batch's examples; None where `solve` is the whole stage.
      prepare: (params, batch) -> batch for `loss`: what the frozen parts make of the data, computed once before the stage; None
        where the loss takes the data as they are.
      whole_batches: whether the loss is that of a batch as a whole (its correlations, its negatives) and not a mean over examples;
        validation then leaves an incomplete last batch out.
      annealed: (params, key, batch, progress) -> (scalar, metrics), what is minimised at a share `progress` in [0, 1) of the stage's steps
        in place of `loss`, which validation goes by; None where that is `loss` itself.
      annealing: share of the stage's steps after which `annealed` is `loss`; until then no validation counts against the stage.
      begin: (params) -> params that the stage starts from, given what earlier stages learnt; None where it starts from `init`.
      solve: (params, key, train, validation) -> entries of params, on the host, given both splits as `Source.batch` has them, masks
        included: what is fitted outright, before any step; None where nothing is.
      needs: the stages whose weights it is trained on; they come before it.
      incomplete: whether its loss takes examples that lack modalities: batches with an entry `types.MASKS`.
      least_examples: number of training examples that it needs.
      least_pairs: number of examples of a batch that must have both of any two modalities, for its loss to say anything of them.
    """

    name: str
    trainable: tuple[str, ...]
    loss: Callable[[types.Params, types.Array, Any], tuple[types.Array, Metrics]] | None
    prepare: Callable[[types.Params, types.Batch], Any] | None = None
    annealed: Callable[[types.Params, types.Array, Any, types.Array], tuple[types.Array, Metrics]] | None = None
    annealing: float = 0.0
    begin: Callable[[types.Params], types.Params] | None = None
    whole_batches: bool = False
    solve: Callable[[types.Params, types.Array, Mapping[str, np.ndarray], Mapping[str, np.ndarray]], types.Params] | None = None
    needs: tuple[str, ...] = ()
    incomplete: bool = False
    least_examples: int = 1
    least_pairs: int = 0


@dataclasses.dataclass(frozen=True)
class Model:
    """Pure functions of one model; arguments are (params, key, data, *, options).

    `observed` is a dict modality -> `[B, *shape]`, and its keys are the subset: condition on what you pass.

    z is an array `[.., D]`. In a model with shared and private codes it is a pytree of such arrays, `[.., D_i]` each, and D is the
    sum of the D_i.

    Attributes:
      specs: the modalities, in order.
      latent_dim: D.
      init: (key) -> params.
      stages: in the order of training.
      sample_prior: (params, key, *, num_samples) -> z `[S, D]`, to generate everything from nothing: of the marginal fitted to the codes
        where the model has one, else of p(z).
      sample_posterior: (params, key, observed, *, num_samples) -> (z `[S, B, D]`, Info).
      posterior_log_density: (params, observed, z `[.., 1 or B, D]`) -> `[.., B]`; normalised for one modality and for all; in between up to a
        constant where there is a `log_normaliser`.
      decode: (params, z `[.., D]`) -> modality -> likelihood parameters `[.., *parameter_shape]`; a ValueError for z of another dimension.
      log_likelihood: (params, key, observed, *, num_importance) -> importance-sampled log p(x_S) `[B]`, in nats, under the prior p(z).
        log p(x_T | x_S) is that of both together less that of x_S.
      log_normaliser: (params, key, observed, *, config) -> estimates `[B]` of the log of what exp(posterior_log_density) integrates to, by
        sequential Monte Carlo of these settings (`posteriors.smc.Config`); None where every subset's density is normalised.
      project: (params, modality, x `[B, *shape]`) -> g_j(x_j) `[B, K]`, where that is all that posteriors see of x_j; None where they see it all.
      elbo: (params, key, observed) -> evidence lower bound `[B]` of all modalities, at beta = 1 and without rescaling,
        under the prior p(z).
      prior_log_density: (params, z `[.., D]`) -> log p(z) `[..]`; None where p(z) is the standard normal.
      config: the config that it was built from; networks of the user's own are not in it. None where there was none.
    """

    specs: specs_lib.Specs
    latent_dim: int
    init: Callable[[types.Array], types.Params]
    stages: Sequence[Stage]
    sample_prior: Callable[..., types.Array]
    sample_posterior: Callable[..., tuple[types.Array, types.Info]]
    posterior_log_density: Callable[..., types.Array]
    decode: Callable[[types.Params, types.Array], types.Batch]
    log_likelihood: Callable[..., types.Array]
    elbo: Callable[..., types.Array]
    log_normaliser: Callable[..., types.Array] | None = None
    project: Callable[[types.Params, str, types.Array], types.Array] | None = None
    prior_log_density: Callable[[types.Params, Any], types.Array] | None = None
    config: Any = None


def settings_of(config: Any, stage: str) -> dict[str, Any]:
    """Returns the settings of a model that a stage depends on, as JSON values; none where the config is None.

    A model's config tells in `NOT_OF_STAGE` which of its fields a stage does not depend on; where it does not tell, a stage depends on all.
    """
    unused = getattr(config, "NOT_OF_STAGE", {}).get(stage, ())
    return {name: value for name, value in (configs.to_json(config) or {}).items() if name not in unused}


def check_settings(config: Any) -> None:
    """Checks what the configs of all models have: `latent_dim`, `beta`, and `warmup` where there is one.

    Raises:
      ValueError: if one makes no sense.
    """
    if config.latent_dim < 1:
        raise ValueError(f"Expected a latent dimension of at least 1, got {config.latent_dim}.")
    if not config.beta > 0:
        raise ValueError(f"Expected a positive beta, got {config.beta}.")
    if not 0 <= getattr(config, "warmup", 0.0) <= 1:
        raise ValueError(f"Expected a warmup in [0, 1], got {config.warmup}.")


def warmed_up(loss: Callable, warmup: float) -> Callable | None:
    """Returns the annealed loss of a stage whose `loss(weight, params, key, batch)` weighs its KL terms.

    The weight rises from 0 to 1 over the first `warmup` of the steps. None where that share is 0.
    """
    if not warmup:
        return None

    def annealed(params, key, batch, progress):
        return loss(jnp.minimum(progress / warmup, 1.0), params, key, batch)

    return annealed


def make_decode(
    decode: Callable[[types.Params, Any], types.Batch], latent_dim: int
) -> Callable[[types.Params, Any], types.Batch]:
    """Returns a jitted `Model.decode`, given a function (params, z, leaves `[.., D_i]`) -> likelihood parameters `[.., *parameter_shape]`.

    It raises a ValueError where z has not `latent_dim` dimensions in all.
    """

    @jax.jit
    def call(params, z):
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(z)]
        if sum(shape[-1] if shape else 0 for shape in shapes) != latent_dim:
            raise ValueError(f"Expected z of {latent_dim} dimensions in all, got arrays of shape {shapes}.")
        leading = shapes[0][:-1]
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), z)
        decoded = compiling.in_pieces(decode)(params, flat)
        return jax.tree.map(lambda leaf: leaf.reshape(*leading, *leaf.shape[1:]), decoded)

    return call


def mean_of(values: types.Array, present: types.Array) -> types.Array:
    """Returns the mean of values `[B]` over the examples that are there, 0 where there is none."""
    return jnp.where(present, values, 0).sum() / jnp.maximum(present.sum(), 1)
