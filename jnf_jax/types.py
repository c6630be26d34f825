"""Records and protocols that everything shares, and the letters of array shapes.

B batch (observations)   S posterior draws   K importance samples   M modalities
D latent dimension       C chains            N steps or iterations
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jnf_jax import specs

Array = jax.Array
Params = Any
Batch = dict[str, Array]  # modality -> [B, *shape]
MASKS = specs.MASKS  # entry of a training batch: modality -> [B] bool, whether the example has it; absent where all have all


class Gaussian(NamedTuple):
    """A Gaussian: loc + scale * (e + lower e), e standard normal; of diagonal covariance where there is no `lower`."""

    loc: Array  # [.., D] mean
    scale: Array  # [.., D] positive; the standard deviation, without `lower`
    lower: Array | None = None  # [.., D, D] strictly lower triangular


class LogDensity(Protocol):
    """The log density of one point."""

    def __call__(self, z: Array) -> Array:
        """Maps z [D] to []."""


class Info(NamedTuple):
    """What is known of the draws of a posterior, per observation; exact draws have the values of perfect chains."""

    acceptance: Array  # [B] mean Metropolis acceptance probability
    divergences: Array  # [B] number of divergent transitions after warm-up
    rhat: Array  # [B] split R-hat of the log density over the chains
    ess: Array  # [B] bulk effective sample size of the log density, over all chains
    improper: Array  # [B] bool: a density or a draw is not finite, or the density grows along some ray and may have no integral
    step_size: Array  # [B] leapfrog step size, 0 where no chain ran


def exact_info(z: Any) -> Info:
    """Returns the Info of independent exact draws, a pytree with leaves `[S, B, D]`.

    Where a draw is not finite it is that of chains that never moved.
    """
    leaves = jax.tree.leaves(z)
    finite = jnp.stack([jnp.isfinite(leaf).all((0, 2)) for leaf in leaves]).all(0)
    dtype = leaves[0].dtype
    return Info(
        acceptance=finite.astype(dtype),
        divergences=jnp.zeros(finite.shape, int),
        rhat=jnp.where(finite, 1.0, jnp.nan),
        ess=jnp.where(finite, float(len(leaves[0])), jnp.nan),
        improper=~finite,
        step_size=jnp.zeros(finite.shape),
    )
