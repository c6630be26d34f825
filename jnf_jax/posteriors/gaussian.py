"""Products of Gaussians in closed form.

    N(loc, scale^2) proportional to  N(0, I)^power  prod_j N(loc_j, diag scale_j^2)

    1 / scale^2 = power + sum_j 1 / scale_j^2,    loc = scale^2 sum_j loc_j / scale_j^2

`power` says how often the prior is in the product. It is 1 where the experts are likelihood terms (MVAE), 0 where the product is of
the experts alone (MVTCAE, MoPoE), and 1 - |S| where each of |S| experts is a posterior that holds the prior once already (JMVAE).
"""

import jax.numpy as jnp

from jnf_jax import types


def product(experts: types.Gaussian, *, power: int, present: types.Array | None = None) -> types.Gaussian:
    """Returns the product of Gaussians with diagonal covariances.

    Args:
      experts: loc, scale `[E, .., D]`.
      power: of the prior N(0, I).
      present: `[E, ..]` bool; an expert that is absent does not count. None: all count.

    Returns:
      loc, scale `[.., D]`; scale is not finite where the product is improper.
    """
    precision = experts.scale**-2
    if present is not None:
        precision = jnp.where(present[..., None], precision, 0)
    total = power + precision.sum(0)
    return types.Gaussian(loc=(precision * experts.loc).sum(0) / total, scale=1 / jnp.sqrt(total))


def confined(gaussian: types.Gaussian) -> types.Gaussian:
    """Returns the Gaussian narrowed by the prior's precision: 1 + 1 / s^2 in place of 1 / s^2, with the same mean."""
    return gaussian._replace(scale=1 / jnp.sqrt(1 + gaussian.scale**-2))
