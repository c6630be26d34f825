"""Joint normalizing flows: any-to-any generation and inference with multimodal VAEs, in JAX."""

from jnf_jax.compiling import use_compilation_cache
from jnf_jax.specs import ModalitySpec

__all__ = ["ModalitySpec", "use_compilation_cache"]
__version__ = "0.1.0"
