"""Draws as ArviZ takes them: chains kept apart, with names for observations and coordinates.

ArviZ 0.x returns an InferenceData, 1.x a DataTree; both have the groups

    posterior       z (chain, draw, observation, z_dim)
    sample_stats    lp (chain, draw, observation), where log densities are given
    constant_data   the Info: acceptance, divergences, rhat, ess, improper, step_size (observation)
"""

import types as python_types
from typing import Any

import jax
import numpy as np

from jnf_jax import types
from jnf_jax.posteriors import hmc


def to_inference_data(draws: Any, info: types.Info, *, num_chains: int, log_density: types.Array | None = None) -> Any:
    """Returns draws of a posterior and their Info for ArviZ.

    R-hat and ESS of `lp` are those of the Info where every iteration is a draw: `thinning=1`, and as many draws as C chains of at
    least `min_iterations` make.

    Args:
      draws: z `[S, B, D]` of `sample_posterior`, or a pytree of such arrays, of a variable each.
      info: that came with them.
      num_chains: C behind each observation, `sampler.chains_for(S)` of JNF's config. Exact draws may be cut into any number of chains.
      log_density: `[S, B]`, `model.posterior_log_density` at the draws.

    Raises:
      ValueError: if there are fewer draws than chains, shapes differ, or ArviZ is not installed.
    """
    arviz = _library()
    leaves = jax.tree_util.tree_leaves_with_path(draws)
    form = (len(leaves[0][1]), *info.rhat.shape)
    if log_density is not None and log_density.shape != form:
        raise ValueError(f"Expected log densities of shape {form}, got {log_density.shape}.")
    apart = lambda leaf: np.asarray(hmc.by_chain(np.asarray(leaf), num_chains))
    posterior = {jax.tree_util.keystr(path, simple=True, separator="_") or "z": apart(leaf) for path, leaf in leaves}
    if any(z.shape[2:3] != info.rhat.shape for z in posterior.values()):
        raise ValueError(f"Expected draws [S, B, D] of the Info's B = {len(info.rhat)}, got {[z.shape for _, z in leaves]}.")
    groups = {
        "posterior": posterior,
        "constant_data": {name: np.asarray(value) for name, value in info._asdict().items()},
    }
    if log_density is not None:
        groups["sample_stats"] = {"lp": apart(log_density)}
    dims = {name: ["observation", f"{name}_dim"] for name in posterior}
    dims |= {name: ["observation"] for name in ("lp", *info._fields)}
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict(groups, dims=dims)
    return arviz.from_dict(**groups, dims=dims)


def _library() -> python_types.ModuleType:
    try:
        import arviz
    except ImportError as error:
        raise ValueError('Expected the package arviz, got none: pip install "jnf_jax[arviz]".') from error
    return arviz
