"""Where everything is kept that can be made again: raw files, prepared data sets, classifiers, compiled programs."""

import os
import pathlib


def directory() -> pathlib.Path:
    """Returns $JNF_CACHE_DIR, or ~/.cache/jnf_jax."""
    return pathlib.Path(os.environ.get("JNF_CACHE_DIR") or pathlib.Path.home() / ".cache" / "jnf_jax")
