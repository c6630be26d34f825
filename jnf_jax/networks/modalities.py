"""The encoders and decoders of several modalities, and the checks of what is observed: what every multimodal VAE starts from."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnf_jax import configs, distributions, keys, subsets, types
from jnf_jax import specs as specs_lib
from jnf_jax.networks import base as networks_base

Precision = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Modalities:
    """Pure functions of the networks of all modalities.

    Attributes:
      specs: modality -> spec.
      networks: modality -> encoder and decoder.
      kinds: modality -> the first one of the same spec and networks.
      precision: what the networks compute in; parameters, features and likelihoods stay in the precision they came in.
    """

    specs: specs_lib.Specs
    networks: Mapping[str, networks_base.Networks]
    kinds: Mapping[str, str]
    precision: Precision = "float32"

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities in order."""
        return tuple(self.specs)

    def init_encoders(self, key: types.Array) -> types.Params:
        """Returns modality -> parameters of its encoder."""
        encoders = {name: self.networks[name].encoder for name in self.names}
        return {name: networks_base.init(e, keys.stream(key, name), self._input_shape(name)) for name, e in encoders.items()}

    def init_decoders(self, key: types.Array, latent_dim: int) -> types.Params:
        """Returns modality -> parameters of its decoder.

        Raises:
          ValueError: if a decoder returns another number of values than its modality's likelihood takes.
        """
        params = {}
        for name in self.names:
            decoder, wanted = self.networks[name].decoder, self.specs[name].parameter_shape
            got = networks_base.output_shape(decoder, (1, latent_dim))
            if got[:1] != (1,) or math.prod(got) != math.prod(wanted):
                raise ValueError(f"Expected the decoder of modality {name!r} to return {(1, *wanted)} for one code, got {got}.")
            params[name] = networks_base.init(decoder, keys.stream(key, name), (1, latent_dim))
        return params

    def features(self, encoders: types.Params, name: str, x: types.Array) -> types.Array:
        """Returns what an encoder sees in data `[B, *shape]`, `[B, F]`."""
        x = distributions.network_input(self.specs[name], x)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # halves are small enough for files, not to compute in
        return self._apply(self.networks[name].encoder, encoders[name], x)

    def features_shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of what an encoder makes of one example, (1, F): what a layer behind it is initialised on.

        Raises:
          ValueError: if it is another.
        """
        shape = networks_base.output_shape(self.networks[name].encoder, self._input_shape(name))
        if len(shape) != 2 or shape[0] != 1:
            raise ValueError(f"Expected the encoder of modality {name!r} to return (1, F) for one example, got {shape}.")
        return shape

    def decode(self, decoders: types.Params, z: types.Array) -> types.Batch:
        """Returns modality -> likelihood parameters `[.., *parameter_shape]` of any z `[.., D]`."""
        return {name: self.decode_one(decoders, name, z) for name in self.names}

    def decode_one(self, decoders: types.Params, name: str, z: types.Array) -> types.Array:
        """Returns one modality's likelihood parameters `[.., *parameter_shape]` of any z `[.., D]`."""
        spec = self.specs[name]
        raw = self._apply(self.networks[name].decoder, decoders[name], z.reshape(-1, z.shape[-1]))
        return distributions.link(spec, raw.reshape(*z.shape[:-1], *spec.parameter_shape))

    def canonical(self, observed: types.Batch) -> types.Batch:
        """Returns the observed data as their likelihoods take them."""
        return {name: distributions.canonical(self.specs[name], x) for name, x in observed.items()}

    def split(self, batch: types.Batch) -> tuple[types.Batch, types.Array]:
        """Returns a training batch's data and which of them are there, `[M, B]` bool.

        The data of a modality that an example lacks stand for nothing, but they are finite.
        """
        data = {name: batch[name] for name in self.names}
        return data, self.present(batch.get(types.MASKS, {}), len(next(iter(data.values()))))

    def present(self, masks: types.Batch, size: int) -> types.Array:
        """Returns which modalities the examples of a batch have, `[M, B]` bool; those without a mask are in all."""
        return jnp.stack([jnp.asarray(masks[n], bool) if n in masks else jnp.ones(size, bool) for n in self.names])

    def ordered(self, observed: types.Batch) -> types.Batch:
        """Returns the observed modalities in the specs' order.

        Raises:
          ValueError: on an unknown modality, a list, a wrong shape, an empty batch, or batches of different lengths.
        """
        out = {name: observed[name] for name in subsets.ordered(self.names, observed)}
        if lists := [name for name, x in out.items() if not hasattr(x, "shape")]:
            raise ValueError(f"Expected an array for modality {lists[0]!r}, got {type(out[lists[0]]).__name__}.")
        for name, x in out.items():
            shape = self.specs[name].shape
            if jnp.ndim(x) != len(shape) + 1 or jnp.shape(x)[1:] != shape:
                raise ValueError(f"Expected modality {name!r} of shape (B, {', '.join(map(str, shape))}), got {jnp.shape(x)}.")
        sizes = {name: jnp.shape(x)[0] for name, x in out.items()}
        if 0 in sizes.values():
            raise ValueError(f"Expected at least one observation, got {sizes}.")
        if len(set(sizes.values())) > 1:
            raise ValueError(f"Expected as many observations of every modality, got {sizes}.")
        return out

    def _apply(self, module: nn.Module, variables: types.Params, x: types.Array) -> types.Array:
        if self.precision == "float32":
            return networks_base.apply(module, variables, x)
        low = functools.partial(jax.tree.map, lambda leaf: leaf.astype(self.precision))
        return networks_base.apply(module, low(variables), low(x)).astype(x.dtype)

    def _input_shape(self, name: str) -> tuple[int, ...]:
        return (1, *self.specs[name].input_shape)


def build(
    specs: specs_lib.Specs,
    network: configs.Component,
    exceptions: Mapping[str, configs.Component],
    given: Mapping[str, networks_base.Networks],
    *,
    precision: Precision = "float32",
) -> Modalities:
    """Returns the networks that a model's config describes.

    Args:
      specs: modality -> spec.
      network: config of every modality's networks,
      exceptions: but these,
      given: and but these, which are linen modules of the user's own.
      precision: what they compute in.

    Raises:
      ValueError: if there are fewer than two modalities, a name that cannot be one, a network is meant for an unknown one, or the precision is unknown.
    """
    specs_lib.check_names(specs)
    if len(specs) < 2:
        raise ValueError(f"Expected at least two modalities, got {list(specs)}.")
    for kind, names in (("networks of the config", exceptions), ("networks given", given)):
        if unknown := set(names) - set(specs):
            raise ValueError(f"Expected {kind} for modalities of {list(specs)}, got {sorted(unknown)}.")
    if precision not in get_args(Precision):
        raise ValueError(f"Expected a precision of {' or '.join(get_args(Precision))}, got {precision!r}.")
    settings = {name: exceptions.get(name, network) for name in specs}
    return Modalities(
        specs=specs,
        precision=precision,
        networks={name: given.get(name) or configs.build(settings[name], spec) for name, spec in specs.items()},
        kinds=specs_lib.kinds(specs, settings | {name: name for name in given}),
    )
