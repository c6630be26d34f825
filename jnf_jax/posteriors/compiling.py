"""How chains are compiled.

On a CPU XLA hands matrix products to a library whose threads wait for each other around every one of them. A chain's products are small and
follow one another without end: with XLA's own, 400 chains of four experts took 2.4 s in place of 4.1 s (2 cores, jax 0.10.2).
"""

import functools
from collections.abc import Callable

import jax

_OWN_PRODUCTS = {"xla_cpu_experimental_ynn_fusion_type": ""}


def jit(function: Callable, **options) -> Callable:
    """Returns `jax.jit(function, **options)`, compiled for many small matrix products where XLA can be told so.

    Inside another `jit` it is the plain one: there the outer program's options count.
    """
    plain = jax.jit(function, **options)

    @functools.cache
    def tuned():
        return jax.jit(function, compiler_options=_OWN_PRODUCTS, **options) if _understood() else plain

    @functools.wraps(function)
    def call(*args, **kwargs):
        inside = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs)))
        return (plain if inside else tuned())(*args, **kwargs)

    return call


@functools.cache
def _understood() -> bool:
    """Returns whether this XLA compiles for a CPU and knows the option."""
    if jax.default_backend() != "cpu":
        return False
    try:
        jax.jit(lambda: 0, compiler_options=_OWN_PRODUCTS).lower().compile()
    except jax.errors.JaxRuntimeError:  # another version, without that library or under another name
        return False
    return True
