"""Laws are checked in float64: float32 would need tolerances loose enough to hide a small log-det error."""

import os
import pathlib
import tempfile

import xla

os.environ.setdefault("JNF_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "jnf_jax_test_cache"))
os.environ.setdefault("XLA_FLAGS", xla.flags(4))

import jax

jax.config.update("jax_enable_x64", True)
