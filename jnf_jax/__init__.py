"""Joint normalizing flows: any-to-any generation and inference with multimodal VAEs, in JAX."""

from jnf_jax.specs import ModalitySpec

__all__ = ["ModalitySpec"]
__version__ = "0.1.0"
