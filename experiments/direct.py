"""Direct experts: one flow conditioned on all of x_S, trained like any expert. What a product of experts is measured against.

    log q_S(z | x_S) = log N(f_S(z); mu_S(x_S), diag sigma_S(x_S)^2) + log |det df_S/dz|,     minimise - E_q(z|X) [log q_S(z | x_S)].

A product knows its experts alone; a direct expert learns the subset's own posterior. It needs a training for every subset, which a
product does not: it is a reference, no competitor.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jnf_jax import compiling, keys, subsets, types
from jnf_jax.data import source
from jnf_jax.models import base, jnf
from jnf_jax.networks import mlp
from jnf_jax.posteriors import flow as expert
from jnf_jax.training import fit, sharding, stages

_ENTRY = "direct"


def build(config: jnf.Config, specs, trained: types.Params, subset: subsets.Subset) -> base.Model:
    """Returns the direct expert of a subset: a model of one stage, whose posterior takes this subset alone.

    Args:
      config: of the JNF whose codes it learns; its networks, projectors and flow are taken over.
      specs: modality -> spec.
      trained: the JNF's parameters.
      subset: S.
    """
    parts = jnf.make_parts(config, specs)
    trunk = mlp.MLP(hidden=config.joint_hidden)

    def features(encoders, views):
        if parts.experts.projector is None:
            each = [parts.modalities.features(encoders, name, views[name]) for name in subset]
        else:
            each = [parts.experts.projected.apply(encoders[name], views[name]) for name in subset]
        return jnp.concatenate(each, axis=-1)

    def gaussian(direct, views):
        found = parts.experts.head.apply(direct["head"], trunk.apply(direct["trunk"], features(direct["encoders"], views)))
        if config.wide_experts:
            return found
        return found._replace(scale=jax.lax.rsqrt(1 + found.scale**-2))

    def view(params, observed):
        return {name: jnf.view(parts, params, name, observed[name]) for name in subset}

    def init(key):
        examples = {name: jnp.zeros((1, *specs[name].shape), jnp.uint8) for name in subset}
        views = view(trained, examples)
        if parts.experts.projector is None:
            encoders = {name: trained["joint"]["encoders"][name] for name in subset}  # as experts begin
        else:
            encoders = {name: parts.experts.projected.init(keys.stream(key, name), views[name]) for name in subset}
        seen = features(encoders, views)
        first = trunk.init(keys.stream(key, "trunk"), seen)
        head = parts.experts.head.init(keys.stream(key, "head"), trunk.apply(first, seen))
        own = {"encoders": encoders, "trunk": first, "head": head, "flow": parts.experts.flow.init(keys.stream(key, "flow"))}
        return {**trained, _ENTRY: own}

    def loss(params, key, batch):
        z = jnf.distributions.gaussian_sample(key, batch["joint_posterior"])
        own = params[_ENTRY]
        one = functools.partial(expert.log_density, parts.experts.flow, own["flow"])
        return -jax.vmap(one)(gaussian(own, batch["views"]), z).mean(), {}

    def prepare(params, batch):
        return {"joint_posterior": jnf.encode_joint(parts, params, batch), "views": view(params, batch)}

    def log_density(params, observed, z):
        own = params[_ENTRY]
        return expert.log_densities(parts.experts.flow, own["flow"], gaussian(own, view(params, observed)), z)

    def sample(params, key, observed, *, num_samples):
        own = params[_ENTRY]
        found = gaussian(own, view(params, observed))
        z = expert.sample_many(parts.experts.flow, own["flow"], key, found, num_samples=num_samples)
        return z, types.exact_info(z)

    stage = base.Stage(name="_".join((_ENTRY, *subset)), trainable=(_ENTRY,), loss=loss, prepare=prepare)
    return dataclasses.replace(
        jnf.build(config, specs),
        init=compiling.once(init),
        stages=(stage,),
        sample_posterior=jax.jit(sample, static_argnames="num_samples"),
        posterior_log_density=jax.jit(log_density),
        log_normaliser=None,
    )


def train(
    model: base.Model,
    key: types.Array,
    data: Mapping[str, source.Source],
    *,
    training: fit.Config,
    folder: pathlib.Path,
    on_report,
) -> types.Params:
    """Returns the parameters of a direct expert, trained, or found in the folder."""
    (stage,) = model.stages
    training = dataclasses.replace(training, batch_size=min(training.batch_size, len(data["train"])))
    params, _ = stages.train(
        model, key, data, settings={stage.name: training}, folder=folder, on_report=on_report,
        mesh=sharding.mesh_for(training.batch_size),
    )  # fmt: skip
    return params
