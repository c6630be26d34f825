"""Laws are checked in float64: float32 would need tolerances loose enough to hide a small log-det error."""

import os
import pathlib
import tempfile

os.environ.setdefault("JNF_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "jnf_jax_test_cache"))
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4 --xla_llvm_disable_expensive_passes=true")

import jax

jax.config.update("jax_enable_x64", True)
