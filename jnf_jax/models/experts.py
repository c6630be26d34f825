"""Unimodal posteriors seen through flows: q_j(z | x_j), or q_j(z | g_j(x_j)) where a projector comes first.

    log q_j(z | x_j) = log N(f_j(z); mu_j(x_j), diag sigma_j(x_j)^2) + log |det d f_j / d z|

The flows f_j do not depend on the observation. They have one form, and their parameters are stacked over the modalities.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnf_jax import compiling, distributions, keys, types
from jnf_jax.flows import base as flow_base
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import modalities
from jnf_jax.posteriors import flow as expert
from jnf_jax.projectors import base as projectors


@dataclasses.dataclass(frozen=True)
class Experts:
    """The experts of all modalities; params are {"encoders": modality -> .., "heads": modality -> .., "flows": leaves `[M, ..]`}.

    Attributes:
      modalities: the networks.
      head: from features to the base Gaussian.
      flow: the bijection z -> u.
      wide: whether a base Gaussian may be wider than the prior.
      projector: what the experts see of an observation; None: all of it.
      projected: the network behind a projector, g_j(x_j) `[B, K]` -> `[B, H]`.
    """

    modalities: modalities.Modalities
    head: networks_base.GaussianHead
    flow: flow_base.Flow
    wide: bool
    projector: projectors.Projector | None
    projected: nn.Module

    def init(self, key: types.Array, projector: types.Params) -> types.Params:
        """Returns the parameters, given the projector's."""
        names = self.modalities.names
        encoders, heads = self.modalities.init_encoders(keys.stream(key, "experts")) if self.projector is None else {}, {}
        for name in names:
            if self.projector is None:
                shape = self.modalities.features_shape(name)
            else:
                example = jax.ShapeDtypeStruct((1, *self.modalities.specs[name].shape), jnp.uint8)
                projection_shape = jax.eval_shape(lambda x, name=name: self.view(projector, name, x), example).shape
                encoders[name] = networks_base.init(self.projected, keys.stream(key, f"projected {name}"), projection_shape)
                shape = networks_base.output_shape(self.projected, projection_shape)
            heads[name] = networks_base.init(self.head, keys.stream(key, f"head {name}"), shape)
        flows = self._init_flows(jax.random.split(keys.stream(key, "flows"), len(names)))
        return {"encoders": encoders, "heads": heads, "flows": flows}

    @functools.cached_property
    def _init_flows(self):
        return compiling.quickly(jax.vmap(self.flow.init))

    def view(self, projector: types.Params, name: str, x: types.Array) -> types.Array:
        """Returns what an expert sees of x_j: x_j itself, or g_j(x_j) `[B, K]`."""
        if self.projector is None:
            return x
        return self.projector.project(projector, name, distributions.canonical(self.modalities.specs[name], x))

    def encode_view(self, params: types.Params, name: str, seen: types.Array) -> types.Gaussian:
        """Returns the base Gaussian of an expert, `[B, D]`, given its `view`."""
        if self.projector is None:
            features = self.modalities.features(params["encoders"], name, seen)
        else:
            features = self.projected.apply(params["encoders"][name], seen)
        base = self.head.apply(params["heads"][name], features)
        return base if self.wide else base._replace(scale=jax.lax.rsqrt(1 + base.scale**-2))

    def flow_of(self, params: types.Params, name: str) -> types.Params:
        """Returns the parameters of one modality's flow."""
        index = self.modalities.names.index(name)
        return jax.tree.map(lambda leaf: leaf[index], params["flows"])

    def log_density(self, params: types.Params, name: str, base: types.Gaussian, z: types.Array) -> types.Array:
        """Returns log q_j(z | x_j) `[B]` at z `[B, D]`, given the base Gaussians of x_j."""
        flow_params = self.flow_of(params, name)
        return jax.vmap(lambda base, z: expert.log_density(self.flow, flow_params, base, z))(base, z)
