import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax import types
from jnf_jax.flows import identity
from jnf_jax.posteriors import compiling, hmc, product

FLOW = identity.build(identity.Config(), 2)
BASE = types.Gaussian(jnp.asarray([[[1.0, 0.0], [0.0, 1.0]]]), jnp.full((1, 2, 2), 0.5))
CONFIG = hmc.Config(num_warmup=20, num_chains=2, max_leapfrog_steps=2)


def draws(key, base):
    rule = product.Rule(kind="prior", flow=FLOW)
    return product.sample(rule, product.Shared({}), key, base, num_samples=2, config=CONFIG)[0]


def test_tuned_chains_draw_what_plain_ones_draw_within_another_jit_too():
    tuned = compiling.jit(draws)
    expected = jax.jit(draws)(jax.random.key(0), BASE)
    np.testing.assert_allclose(tuned(jax.random.key(0), BASE), expected, atol=1e-8)
    np.testing.assert_allclose(jax.jit(lambda key: tuned(key, BASE))(jax.random.key(0)), expected, atol=1e-8)


def test_chains_transfer_nothing_from_or_to_the_host():
    tuned = compiling.jit(draws)
    key, host = jax.random.key(0), jax.device_get(BASE)
    tuned(key, BASE)
    with jax.transfer_guard("disallow"):
        last = jax.block_until_ready(tuned(key, BASE))
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            tuned(key, jax.tree.map(np.zeros_like, host))
    assert jnp.isfinite(last).all()


def test_static_arguments_are_told_apart():
    scaled = compiling.jit(lambda x, *, factor: x * factor, static_argnames="factor")
    assert [float(scaled(jnp.ones(()), factor=factor)) for factor in (2, 3)] == [2, 3]


@pytest.mark.parametrize("options", [{"xla_cpu_option_of_another_version": ""}, {}])
def test_an_xla_that_does_not_know_the_option_is_left_alone(monkeypatch, options):
    monkeypatch.setattr(compiling, "_OWN_PRODUCTS", options)
    monkeypatch.setattr(compiling, "_understood", functools.cache(compiling._understood.__wrapped__))
    assert float(compiling.jit(lambda x: x + 1)(jnp.ones(()))) == 2
    assert compiling._understood() == (not options)
