"""How programs are compiled, and where they are kept.

On a CPU XLA hands matrix products to a library whose threads wait for each other around every one of them. A chain's products are small and
follow one another without end: with XLA's own, 400 chains of four experts took 2.4 s in place of 4.1 s (2 cores, jax 0.10.2).
They run no slower when LLVM optimises less (1.75 s of a CPU against 1.85 s), and a product of two is compiled in 18 s in place of 25 s.

Networks see a large batch in pieces there: their temporary arrays stay in the cache, the C library keeps such small ones for the next program,
and memory does not grow with the batch. Large ones go back to the system, which clears every page when they are asked for again.

A program that runs once is not worth optimising: initial parameters of four modalities took 13 s of compilation, and 5 s without
(seconds of a CPU; their values agree to rounding). XLA writes out a function wherever it is called, so a network's parameters have a program of
their own, and networks of one form share it (`networks.base.init`).

XLA orders a program's operations so that some can run side by side. A training step's fill every core anyway, and in XLA's other order
it runs faster (`docs/results/speed-tried.md`).

What the environment variable XLA_FLAGS says goes before.
"""

import contextlib
import ctypes
import functools
import gc
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jnf_jax import cache

_FOR_SMALL_PRODUCTS = {"xla_cpu_experimental_ynn_fusion_type": "", "xla_backend_optimization_level": 1}
_FOR_TRAINING = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
_FOR_ONE_RUN = {"xla_backend_optimization_level": 0}
_PIECE = 128  # examples
_LEAST_SECONDS = 0.02  # of compilation, for a program to be kept
_WORTH_TRIMMING = 2.0  # seconds of compilation


def jit(function: Callable, **options) -> Callable:
    """Returns `jax.jit(function, **options)`, compiled for many small matrix products where XLA can be told so.

    Inside another `jit` it is the plain one: there the outer program's options count.
    """
    return _compiled(function, _FOR_SMALL_PRODUCTS, options)


def quickly(function: Callable, **options) -> Callable:
    """Returns `jax.jit(function, **options)` for a function that seldom runs: compiled quickly, not to run quickly.

    Inside another `jit` it is the plain one.
    """
    return _compiled(function, _FOR_ONE_RUN, options)


def once(function: Callable) -> Callable:
    """Returns `quickly(function)` for a function that runs once: its program is not kept.

    A second call compiles it again, and keeps it. Inside another `jit` it is the plain one.
    """
    plain, tuned = _with_options(function, _FOR_ONE_RUN, {})
    calls = itertools.count()

    @functools.wraps(function)
    def call(*args):
        if _is_traced(args):
            return plain(*args)
        if next(calls):
            return tuned()(*args)
        with trimming():
            result = jax.block_until_ready(tuned()(*args))
            tuned().clear_cache()
        return result

    return call


def for_training(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Returns the program of training steps, its operations in the order that suits them where XLA can be told so."""
    with trimming():
        return lowered.compile(compiler_options=_chosen(_FOR_TRAINING))


@contextlib.contextmanager
def trimming() -> Iterator[None]:
    """Gives memory that nothing uses back to the system after a compilation, where the C library can.

    Long compilations leave some hundreds of MiB behind. After a short one there is little to find, and the search would take longer.
    """
    start = time.perf_counter()
    yield
    if time.perf_counter() - start < _WORTH_TRIMMING:
        return
    for _ in range(2):  # what JAX holds for a program is let go in the first collection, and freed in the second
        gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another library, or another system
        ctypes.CDLL(None).malloc_trim(0)


def in_pieces(function: Callable) -> Callable:
    """Returns a function `(.., batch)`, leaves `[N, ..]`, that on a CPU takes a large batch some 128 examples at a time.

    For inference: what differentiates through it keeps every piece's values. With several devices the batch stays whole, for each has its part.
    """

    @functools.wraps(function)
    def call(*args):
        *others, batch = args
        size = len(jax.tree.leaves(batch)[0])
        num = num_pieces(size) if jax.default_backend() == "cpu" and jax.device_count() == 1 else 1
        return mapped(functools.partial(function, *others), batch, num=num)

    return call


def mapped(function: Callable, batch, *, num: int):
    """Returns `function(batch)`, leaves `[N, ..]`, computed for `num` equal pieces one after another."""
    if num == 1:
        return function(batch)
    pieces = jax.tree.map(lambda leaf: leaf.reshape(num, -1, *leaf.shape[1:]), batch)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), jax.lax.map(function, pieces))


def in_batches(function: Callable, xs: Any, *, most: int) -> Any:
    """Returns what a function makes of each entry of `xs`, leaves `[B, ..]`, at most so many at once.

    Batches are of one size, the last one filled up: `lax.map` would compile a smaller one apart.
    """
    num = len(jax.tree.leaves(xs)[0])
    batches = -(-num // most)
    size = -(-num // batches)
    rows = jnp.arange(batches * size) % num
    found = jax.lax.map(function, jax.tree.map(lambda leaf: leaf[rows], xs), batch_size=size)
    return jax.tree.map(lambda leaf: leaf[:num], found)


def num_pieces(size: int) -> int:
    """Returns the number of equal pieces of at most 128 examples for a batch; 1 where they would be smaller than 32."""
    wanted = max(1, -(-size // _PIECE))
    return next((num for num in range(wanted, 4 * wanted + 1) if size % num == 0 and size // num >= _PIECE // 4), 1)


def use_compilation_cache(folder: str | os.PathLike | None = None) -> None:
    """Lets JAX keep compiled programs in a folder, for later processes; without one, those of `jnf-jax`.

    What JAX's own environment variables say goes before: JAX_COMPILATION_CACHE_DIR and JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS.

    Args:
      folder: where; None: `$JNF_CACHE_DIR/xla`, or `~/.cache/jnf_jax/xla`.
    """
    for name, value in (
        ("jax_compilation_cache_dir", str(folder or cache.directory() / "xla")),
        ("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS),
    ):
        if not os.environ.get(name.upper()):
            jax.config.update(name, value)


def _compiled(function: Callable, compiler_options: Mapping, options: Mapping) -> Callable:
    plain, tuned = _with_options(function, compiler_options, options)

    @functools.wraps(function)
    def call(*args, **kwargs):
        if _is_traced((args, kwargs)):
            return plain(*args, **kwargs)
        try:
            return tuned()(*args, **kwargs)
        except ValueError as error:  # inside another `jit` after all, with arguments that are constants there
            if "compiler_options" not in str(error):
                raise
            return plain(*args, **kwargs)

    return call


def _with_options(function: Callable, compiler_options: Mapping, options: Mapping) -> tuple[Callable, Callable[[], Callable]]:
    """Returns the plain `jax.jit` of a function, and what returns the one that is compiled with options where XLA knows them."""
    plain = jax.jit(function, **options)

    @functools.cache
    def tuned():
        chosen = _chosen(compiler_options)
        return jax.jit(function, compiler_options=chosen, **options) if chosen else plain

    return plain, tuned


def _chosen(compiler_options: Mapping) -> dict | None:
    """Returns the options that XLA_FLAGS does not set; None where this XLA does not know them."""
    chosen = {name: value for name, value in compiler_options.items() if f"--{name}=" not in os.environ.get("XLA_FLAGS", "")}
    return chosen if _understood(tuple(chosen.items())) else None


def _is_traced(arguments: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))


@functools.cache
def _understood(compiler_options: tuple) -> bool:
    """Returns whether this XLA compiles for a CPU and knows the options."""
    if jax.default_backend() != "cpu":
        return False
    try:
        jax.jit(lambda: 0, compiler_options=dict(compiler_options)).lower().compile()
    except jax.errors.JaxRuntimeError:  # another version, without that library or under another name
        return False
    return True
