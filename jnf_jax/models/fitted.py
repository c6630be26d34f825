"""Stages that serve a product of experts and are fitted outright, to codes of the training examples.

`marginal` is a density of draws of q(z | X). `divisors` are the Gaussians that these codes have in every expert's base space.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnf_jax import distributions, types
from jnf_jax.models import base, sampled
from jnf_jax.posteriors import divisors


def marginal_stage(parts: sampled.Parts, *, num_codes: int) -> base.Stage:
    """Returns the stage that fits the density of the codes, to so many of them.

    Raises:
      ValueError: if the density needs more.
    """
    if num_codes < (least := parts.rule.marginal.least_codes):
        raise ValueError(f"Expected num_codes of at least {least}, for as many components of the marginal, got {num_codes}.")
    return base.Stage(
        name="marginal",
        trainable=("marginal",),
        loss=functools.partial(marginal_loss, parts) if parts.rule.marginal.by_gradient else None,
        prepare=lambda params, batch: {"joint_posterior": sampled.encode_joint(parts, params, batch)},
        solve=functools.partial(solve_marginal, parts, num_codes),
        needs=("joint",),
        incomplete=parts.joint.incomplete,
        least_examples=least,
    )


def divisors_stage(parts: sampled.Parts, *, num_codes: int, needs: tuple[str, ...]) -> base.Stage:
    """Returns the stage that fits the experts' divisors, to so many codes."""
    solve = functools.partial(solve_divisors, parts, num_codes)
    return base.Stage(
        name="divisors", trainable=("divisors",), loss=None, solve=solve, needs=needs, incomplete=parts.joint.incomplete
    )


def marginal_loss(
    parts: sampled.Parts, params: types.Params, key: types.Array, batch: dict[str, Any]
) -> tuple[types.Array, base.Metrics]:
    """Returns the negative log density of draws of q(z | X) under the marginal."""
    z = distributions.gaussian_sample(key, batch["joint_posterior"])
    return -jax.vmap(functools.partial(parts.rule.marginal.log_density, params["marginal"]))(z).mean(), {}


def solve_marginal(
    parts: sampled.Parts, num_codes: int, params: types.Params, key: types.Array, train, validation
) -> types.Params:
    """Returns the marginal fitted to draws of q(z | X), of the most complete examples: a Gaussian fits the codes of few modalities badly."""
    draw = lambda key, batch: distributions.gaussian_sample(key, sampled.encode_joint(parts, params, batch))
    share = max(num_codes // 4, parts.rule.marginal.least_codes) / len(jax.tree.leaves(train)[0])
    codes, held_out = (
        over_examples(draw, key, data, num=num_codes, among=most_complete(data, share=share)) for data in (train, validation)
    )
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    return {"marginal": jax.device_put(parts.rule.marginal.fit(seed, codes, held_out))}


def solve_divisors(
    parts: sampled.Parts, num_codes: int, params: types.Params, key: types.Array, train, validation
) -> types.Params:
    """Returns for every expert the Gaussian that codes have in its base space."""
    del validation
    names = parts.names

    def encode(key, batch):
        z = distributions.gaussian_sample(key, sampled.encode_joint(parts, params, batch))
        flows = [functools.partial(parts.experts.flow.forward, parts.experts.flow_of(params["experts"], n)) for n in names]
        u = [jax.vmap(flow)(z)[0] for flow in flows]
        present = parts.experts.modalities.present(batch.get(types.MASKS, {}), len(z))
        scales = [sampled.encode_expert(parts, params, name, batch[name]).scale for name in names]
        return u, [jnp.where(there[:, None], scale, 0) for scale, there in zip(scales, present, strict=True)]

    u, scales = over_examples(encode, key, train, num=num_codes)
    found = [divisors.by_moments(u_j, scale.max(0)) for u_j, scale in zip(u, scales, strict=True)]
    return {"divisors": jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)._asdict()}


def most_complete(data, *, share: float) -> np.ndarray:
    """Returns the numbers of the examples that lack no modality; of those that lack one too if they are less than this share, and so on."""
    num = len(jax.tree.leaves(data)[0])
    there = sum(np.asarray(mask, int) for mask in data.get(types.MASKS, {}).values()) + np.zeros(num, int)
    least = min(math.ceil(share * num), num)
    return np.flatnonzero(there >= np.sort(there)[num - least])


def over_examples(function, key: types.Array, data, *, num: int, among: np.ndarray | None = None, batch_size: int = 500):
    """Returns function(key, batch) of the first `num` examples, of these numbers if any, computed in batches of one shape, on the host."""
    among = np.arange(len(jax.tree.leaves(data)[0])) if among is None else among
    num = min(num, len(among))
    call, found = jax.jit(function), []
    for start in range(0, num, batch_size):
        numbers = np.arange(start, start + min(batch_size, num)) % num  # the last batch is filled up; its filling is dropped
        rows = among[numbers]
        found.append(jax.device_get(call(jax.random.fold_in(key, start), jax.tree.map(lambda x, r=rows: x[r], data))))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num], *found)
