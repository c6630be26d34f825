"""Deep canonical correlation projectors (JNF-DCCA; Andrew et al., 2013).

The loss of a pair is minus the sum of the k largest singular values of S11^(-1/2) S12 S22^(-1/2), S the batch's covariances with r I added to S11
and S22; pairs are summed. Whitening by Cholesky factors in place of the symmetric roots gives the same singular values, and their
gradient, U_k V_k^T through the factors, needs no differences of singular values.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnf_jax import configs, keys, types
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import modalities as modalities_lib
from jnf_jax.projectors import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """Deep canonical correlation projectors.

    Attributes:
      dim: K, of each projection.
      top: k, canonical correlations that count; all K where None.
      regularisation: r.
    """

    dim: int = 9
    top: int | None = None
    regularisation: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        if self.dim < 1:
            raise ValueError(f"Expected a projection of at least 1 dimension, got {self.dim}.")
        if self.top is not None and not 1 <= self.top <= self.dim:
            raise ValueError(f"Expected to count 1 to {self.dim} correlations, got {self.top}.")
        if not self.regularisation > 0:
            raise ValueError(f"Expected a positive regularisation, got {self.regularisation}.")


def build(config: Config, modalities: modalities_lib.Modalities) -> base.Projector:
    """Returns the projectors of all modalities; their networks have the form of the modalities' encoders."""
    head = nn.Dense(config.dim, use_bias=False)  # correlations do not see a shift

    def init(key):
        encoders = modalities.init_encoders(keys.stream(key, "encoders"))
        heads = {
            name: networks_base.init(head, keys.stream(key, f"head {name}"), modalities.features_shape(name))
            for name in modalities.names
        }
        return {"encoders": encoders, "heads": heads}

    def project(params, name, x):
        return head.apply(params["heads"][name], modalities.features(params["encoders"], name, x))

    def loss(params, key, batch):
        del key
        projected = {name: project(params, name, batch[name]) for name in modalities.names}
        there = base.pairs_there(modalities, batch)
        first, second = (jnp.stack([projected[pair[end]] for pair in there]) for end in (0, 1))
        # All pairs at once: an accelerator factorises small matrices one after another, and waits for each.
        compute = jax.vmap(functools.partial(correlations, regularisation=config.regularisation))
        total = compute(first, second, there=jnp.stack(list(there.values())))[:, : config.top].sum(1)
        return -total.sum(), {f"correlation/{i}+{j}": value for (i, j), value in zip(there, total, strict=True)}

    return base.Projector(init=init, project=project, loss=loss, incomplete=True, least_pairs=config.dim + 1)


def correlations(a: types.Array, b: types.Array, *, regularisation: float, there: types.Array | None = None) -> types.Array:
    """Returns the canonical correlations `[K]` of a batch, largest first, in at least float32.

    Args:
      a: `[B, K]`.
      b: `[B, K]`.
      regularisation: r, added to the diagonals of both covariances.
      there: `[B]` bool, the examples that have both; None: all of them. With no more of them than dimensions the correlations are 0.

    Raises:
      ValueError: if there are no more examples than dimensions: every correlation of such a batch is 1.
    """
    num, dim = a.shape
    if num <= dim:
        raise ValueError(f"Expected a batch of more than {dim} examples for {dim} correlations, got {num}.")
    a, b = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (a, b))
    weight = (jnp.ones(num, bool) if there is None else there)[:, None]
    count = weight.sum()
    a, b = (jnp.where(weight, x - jnp.where(weight, x, 0).sum(0) / jnp.maximum(count, 1), 0) for x in (a, b))
    ridge = regularisation * jnp.eye(dim, dtype=a.dtype)
    product = lambda x, y: jnp.matmul(x.T, y, precision=jax.lax.Precision.HIGHEST) / jnp.maximum(count - 1, 1)
    first, second = (jnp.linalg.cholesky(product(x, x) + ridge) for x in (a, b))
    solve = lambda root, x: jax.scipy.linalg.solve_triangular(root, x, lower=True)
    whitened = solve(second, solve(first, product(a, b)).T)
    return jnp.where(count > dim, jnp.linalg.svd(whitened, compute_uv=False), 0)
