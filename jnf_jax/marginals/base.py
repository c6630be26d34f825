"""The contract of a marginal: a density of the codes z in R^D, whatever was observed.

A VAE assumes the prior p(z) = N(0, I). What its codes follow is the aggregate posterior, the average of q(z | X) over the data. A marginal is a
model of it, fitted after the joint VAE. A file exports `Config` and `build(config, dim) -> Marginal`. Densities take one point; `vmap` is the
caller's.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from jnf_jax import types


@dataclasses.dataclass(frozen=True)
class Marginal:
    """Pure functions of one marginal.

    Attributes:
      init: (key) -> params, of the shapes that `fit` returns.
      log_density: (params, z `[D]`) -> log density `[]`, normalised.
      sample: (params, key, *, num_samples) -> z `[S, D]`.
      fit: (seed, codes `[N, D]`, held-out codes `[N', D]`) -> params, on the host; None where there is nothing to fit.
      trim: (params) -> params without what has no weight, of the same density and cheaper; under a transformation of JAX, params as they are.
      least_codes: number of codes that `fit` needs.
      by_gradient: whether what `fit` returns is only where training by gradients starts from (maximum likelihood of codes).
    """

    init: Callable[[types.Array], types.Params]
    log_density: Callable[[types.Params, types.Array], types.Array]
    sample: Callable[..., types.Array]
    fit: Callable[[int, np.ndarray, np.ndarray], types.Params] | None = None
    trim: Callable[[types.Params], types.Params] = lambda params: params
    least_codes: int = 1
    by_gradient: bool = False
