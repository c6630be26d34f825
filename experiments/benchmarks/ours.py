"""Our side of the benchmarks."""

import functools
import time
from collections.abc import Callable
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import settings
from jnf_jax import specs as specs_lib
from jnf_jax import types
from jnf_jax.models import jnf
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, mlp
from jnf_jax.posteriors import hmc
from jnf_jax.training import fit, sharding, step


def versions() -> dict[str, str]:
    """Returns what is measured."""
    return {name: metadata.version(name) for name in ("jnf_jax", "jax", "jaxlib", "blackjax")}


def start(num_threads: int) -> None:
    """XLA uses every core that the process may run on."""
    del num_threads


def build(name: str, sampler: hmc.Config | None = None):
    """Returns the model of a setting and its parameters."""
    setting = settings.SETTINGS[name]
    specs = {
        m: specs_lib.ModalitySpec(shape=shape, likelihood="laplace", scale=0.75, support=(0.0, 1.0))
        for m, shape in setting.shapes.items()
    }
    convolutions = {
        "svhn": conv.Config(hidden=None, decoder_hidden=None),
        "polymnist": conv.Config(kernel=3, hidden=setting.latent_dim, decoder_hidden=None),
    }
    given = {
        m: networks_base.Networks(encoder=mlp.MLP(hidden=(512, 512)), decoder=mlp.Decoder(hidden=(512,), shape=specs[m].shape))
        for m, kind in setting.networks.items()
        if kind == "mlp"
    }
    config = jnf.Config(
        latent_dim=setting.latent_dim,
        networks={m: convolutions[kind] for m, kind in setting.networks.items() if kind != "mlp"},
        joint_hidden=(512, 512),
        sampler=sampler or hmc.Config(),
    )
    model = jnf.build(config, specs, networks=given)
    return model, jax.jit(model.init)(jax.random.key(0))


def data(name: str, num: int) -> types.Batch:
    """Returns random images as our data sets hold them: 8-bit integers."""
    rng = np.random.default_rng(0)
    shapes = settings.SETTINGS[name].shapes
    return {m: jnp.asarray(rng.integers(0, 256, (num, *shape), np.uint8)) for m, shape in shapes.items()}


def prepare(row: settings.Row) -> Callable[[int], float]:
    """Returns a function (amount of work) -> seconds, compiled and ready to be timed; `run.flops` a unit where they are counted."""
    return {"train": train, "draws": draws, "subset": subset}[row.kind](row)


def timed(compute: Callable[[], object]) -> float:
    """Returns the seconds until the result is there."""
    begun = time.perf_counter()
    jax.block_until_ready(compute())
    return time.perf_counter() - begun


def train(row: settings.Row) -> Callable[[int], float]:
    """Optimiser steps of one stage, on data that lie on the device."""
    setting = settings.SETTINGS[row.setting]
    model, params = build(row.setting)
    stage = next(stage for stage in model.stages if stage.name == row.what)
    everything = fit.prepare(stage, params, data(row.setting, 10 * setting.batch_size), batch_size=setting.batch_size)
    optimizer = fit.make_optimizer(fit.Config(schedule="constant", clip_norm=None))
    make = functools.partial(step.make_train_call, stage, optimizer, sharding.make_mesh(), batch_size=setting.batch_size)
    state = fit.initial_train_state(stage, params, optimizer)
    frozen = {name: value for name, value in params.items() if name not in stage.trainable}
    arguments = (frozen, jax.random.key(1), everything)
    call = make(num_steps=settings.STEPS_PER_CALL).lower(state, *arguments).compile()

    def run(amount):
        nonlocal state
        begun = time.perf_counter()
        for _ in range(amount // (setting.batch_size * settings.STEPS_PER_CALL)):
            state, _ = call(state, *arguments)
        jax.block_until_ready(state)
        return time.perf_counter() - begun

    one = make(num_steps=1).lower(state, *arguments).compile()
    run.flops = one.cost_analysis()["flops"] / setting.batch_size
    return run


def draws(row: settings.Row) -> Callable[[int], float]:
    """Draws given the first modality, or the decoding of as many draws."""
    model, params = build(row.setting)
    name = next(iter(model.specs))
    observed = {name: data(row.setting, row.amount)[name]}
    if row.what == "decode":
        z = jnp.zeros((row.amount, model.latent_dim))
        compute = lambda: model.decode(params, z)
    else:
        compute = lambda: model.sample_posterior(params, jax.random.key(1), observed, num_samples=1)
    jax.block_until_ready(compute())
    return lambda amount: timed(compute)


def subset(row: settings.Row) -> Callable[[int], float]:
    """Draws of a subset's posterior by the reference's chain."""
    setting, size = settings.SETTINGS[row.setting], int(row.what)
    model, params = build(row.setting, hmc.REFERENCE)
    names = list(model.specs)[:size]
    observed = {name: x for name, x in data(row.setting, settings.NUM_OBSERVATIONS).items() if name in names}
    if size == len(setting.shapes):  # the joint encoder would answer; this is about the product
        raise NotImplementedError
    compute = lambda: model.sample_posterior(params, jax.random.key(1), observed, num_samples=settings.NUM_DRAWS)
    jax.block_until_ready(compute())
    return lambda amount: timed(compute)
