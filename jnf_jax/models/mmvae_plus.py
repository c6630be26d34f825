"""MMVAE+, a mixture of experts with shared and private codes (Palumbo, Daunhawer & Vogt, 2023).

A modality is decoded from the shared code u and a private code w_j of its own, p(X, u, w) = p(u) prod_j p(w_j) p(x_j | u, w_j), with standard priors.
`private_mixture` derives the objective, in which private codes of other modalities come from auxiliary priors. z is {"shared": [.., D],
"private": modality -> [.., D_p]}.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from jnf_jax import configs
from jnf_jax import specs as specs_lib
from jnf_jax.models import base, private_mixture
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, modalities


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """MMVAE+.

    Attributes:
      latent_dim: D, of the shared code.
      private_dim: D_p, of each modality's private code.
      beta: weight of the terms of priors and posteriors.
      num_importance: K; 1, the paper's image experiments, gives an ELBO.
      gradient: `dreg`, doubly reparameterised, or `iwae`, the plain one.
      family: of priors and posteriors, `laplace` or `gaussian`.
      rescale: whether each modality's likelihood is weighted by max_k dim(x_k) / dim(x_j).
      scale_transform: `softplus` or `exp`: how encoders make a scale positive.
      network: encoder and decoder of every modality.
      networks: exceptions to `network`, by modality.
      precision: what these networks compute in, `float32` or `bfloat16`.
    """

    latent_dim: int = 32
    private_dim: int = 32
    beta: float = 1.0
    num_importance: int = 1
    gradient: Literal["dreg", "iwae"] = "dreg"
    family: Literal["laplace", "gaussian"] = "laplace"
    rescale: bool = False
    scale_transform: Literal["softplus", "exp"] = "softplus"
    network: configs.Component = conv.Config()
    networks: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)
    precision: modalities.Precision = "float32"

    def __post_init__(self):
        super().__post_init__()
        base.check_settings(self)
        for name in ("private_dim", "num_importance"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected a {name} of at least 1, got {getattr(self, name)}.")


def build(
    config: Config, specs: specs_lib.Specs, *, networks: Mapping[str, networks_base.Networks] | None = None
) -> base.Model:
    """Returns the model.

    Args:
      config: its settings.
      specs: modality -> spec.
      networks: linen modules of your own in place of the configured ones, by modality.

    Raises:
      ValueError: if there are fewer than two modalities, or a network is given for an unknown one.
    """
    return private_mixture.build(config, specs, networks)
