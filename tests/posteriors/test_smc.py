import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax.posteriors import product, smc


def error(key, *, dim, num_experts, precision=4.0):
    """log Z less the right one, for the product of exact experts N(z; mu_j, 1 / precision) of linear-Gaussian views."""
    views, experts, order, passes = jax.random.split(key, 4)
    z = jax.random.normal(views, (dim,))
    noise = jax.random.normal(jax.random.fold_in(views, 1), (num_experts, dim)) / jnp.sqrt(precision - 1)
    loc = (z + noise) * (precision - 1) / precision

    def densities(z):
        each = (-0.5 * precision * (z - loc) ** 2 + 0.5 * jnp.log(precision / (2 * jnp.pi))).sum(-1)
        prior = (-0.5 * z**2 - 0.5 * jnp.log(2 * jnp.pi)).sum()
        return jax.nn.logsumexp(each) - jnp.log(num_experts), each.sum() - (num_experts - 1) * prior

    whole = 1 + num_experts * (precision - 1)
    mode = precision * loc.sum(0) / whole
    right = densities(mode)[1] + 0.5 * dim * jnp.log(2 * jnp.pi / whole)
    config = smc.Config()
    shape = (num_experts, 2 * -(-config.num_particles // num_experts), dim)
    pilot = loc[:, None] + jax.random.normal(experts, shape) / jnp.sqrt(precision)
    starts = product.starts_of_passes(order, pilot, num_particles=config.num_particles)
    return smc.log_normaliser(densities, passes, starts, config=config)[0] - right


@pytest.mark.parametrize("dim", [2, 64])
def test_the_normaliser_is_right_in_many_dimensions_too(dim):
    keys = jax.random.split(jax.random.key(0), 64)
    errors = np.asarray(jax.jit(jax.vmap(lambda key: error(key, dim=dim, num_experts=4)))(keys))
    # log of an unbiased estimate: low by half its variance on average
    assert abs(errors.mean() + errors.var() / 2) < 5 * errors.std() / np.sqrt(len(errors))
    assert abs(errors.mean()) < 0.5


@pytest.mark.parametrize("options", [{"num_temperatures": 0}, {"num_particles": 1}])
def test_nonsense_is_refused(options):
    with pytest.raises(ValueError, match="larger num_"):
        smc.Config(**options)
