"""Laws are checked in float64: float32 would need tolerances loose enough to hide a small log-det error."""

import gc
import os
import pathlib
import tempfile

import xla

os.environ.setdefault("JNF_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "jnf_jax_test_cache"))
os.environ.setdefault("XLA_FLAGS", xla.flags(4))
# What one command compiled, no other compiles again. Within a test process few programs are the same: keeping them takes longer than it saves.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.environ["JNF_CACHE_DIR"] + "/xla")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_enable_compilation_cache", False)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Lets go of a file's compiled programs: those of the whole suite took 4 and 6 GB of two workers."""
    yield
    jax.clear_caches()
    gc.collect()
