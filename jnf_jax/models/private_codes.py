"""Codes that modalities share, u, and codes that each has for itself, w_j.

    p(X, u, w) = p(u) prod_j p(w_j) p(x_j | u, w_j)

z is {"shared": [.., D], "private": modality -> [.., D_p]}. An encoder says of both codes at once. Given x_S, the w_j of an observed modality comes
from its encoder, that of any other from the prior; how the modalities agree on u is the model's.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jnf_jax import distributions, keys, types
from jnf_jax.models import closed_form
from jnf_jax.networks import modalities

Codes = dict[str, Any]  # {"shared": .., "private": ..}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the codes are.

    Attributes:
      modalities: the networks.
      shared_dim: D.
      private_dim: D_p.
      family: of priors and posteriors, `gaussian` or `laplace`.
    """

    modalities: modalities.Modalities
    shared_dim: int
    private_dim: int
    family: str = "gaussian"

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities in order."""
        return self.modalities.names

    @property
    def latent_dim(self) -> int:
        """Of all codes together."""
        return self.shared_dim + len(self.names) * self.private_dim

    def split(self, encoded: types.Gaussian) -> dict[str, types.Gaussian]:
        """Returns an encoder's output `[.., D + D_p]` as that of the shared and that of the private code."""
        cut = lambda part: jax.tree.map(lambda leaf: leaf[..., part], encoded)
        return {"shared": cut(slice(self.shared_dim)), "private": cut(slice(self.shared_dim, None))}

    def init_decoders(self, key: types.Array) -> types.Params:
        """Returns modality -> parameters of its decoder, which sees u and w_j."""
        return self.modalities.init_decoders(keys.stream(key, "decoders"), self.shared_dim + self.private_dim)

    def decode(self, decoders: types.Params, z: Codes) -> types.Batch:
        """Returns modality -> likelihood parameters of the codes."""
        code = lambda name: jnp.concatenate([z["shared"], z["private"][name]], axis=-1)
        return {name: self.modalities.decode_one(decoders, name, code(name)) for name in self.names}

    def prior(self, shared: closed_form.Prior | None = None) -> closed_form.Prior:
        """Returns p(u) prod_j p(w_j); p(u) is standard where it is not given."""
        shared = shared or closed_form.standard_prior(self.shared_dim, family=self.family)
        private = closed_form.standard_prior(self.private_dim, family=self.family)

        def sample(params, key, num):
            of_name = {name: private.sample(params, keys.stream(key, f"private {name}"), num) for name in self.names}
            return {"shared": shared.sample(params, keys.stream(key, "shared"), num), "private": of_name}

        def log_prob(params, z):
            return shared.log_prob(params, z["shared"]) + sum(private.log_prob(params, w) for w in z["private"].values())

        return closed_form.Prior(sample, log_prob)

    def posterior(self, shared: closed_form.Posterior, private: types.Gaussian, indices: types.Array) -> closed_form.Posterior:
        """Returns q(u | x_S) prod_j q(w_j | x_S), given the former and what the observed modalities `[|S|, B, D_p]` say of the latter."""
        default = distributions.standard((len(self.names), *private.loc.shape[1:]), private.loc.dtype)
        every = jax.tree.map(lambda default, leaf: default.at[indices].set(leaf), default, private)  # [M, B, D_p]
        of_name = {name: jax.tree.map(lambda leaf: leaf[j], every) for j, name in enumerate(self.names)}

        def sample(key):
            draw = lambda name, q: distributions.family_sample(self.family, keys.stream(key, f"private {name}"), q)
            own = {name: draw(name, q) for name, q in of_name.items()}
            return {"shared": shared.sample(keys.stream(key, "shared")), "private": own}

        def log_prob(z):
            own = [distributions.family_log_prob(self.family, q, z["private"][name]) for name, q in of_name.items()]
            return shared.log_prob(z["shared"]) + sum(own)

        kl = None
        if shared.kl is not None and self.family == "gaussian":
            kl = shared.kl + sum(map(distributions.kl_to_standard_normal, of_name.values()))
        return closed_form.Posterior(sample, log_prob, kl)
