"""Our side of the benchmarks."""

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jnf_jax
from experiments.benchmarks import settings, targets
from jnf_jax import compiling, configs, types
from jnf_jax import specs as specs_lib
from jnf_jax.flows import base as flow_base
from jnf_jax.flows import identity, made, maf
from jnf_jax.models import base, jmvae, jnf, mmvae, mmvae_plus, mopoe, mvae, mvtcae
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, mlp, modalities
from jnf_jax.posteriors import flow as expert
from jnf_jax.posteriors import hmc, product
from jnf_jax.training import fit, sharded, sharding, step


def versions() -> dict[str, str]:
    """Returns what is measured."""
    return {"jnf_jax": jnf_jax.__version__} | {name: metadata.version(name) for name in ("jax", "jaxlib", "blackjax")}


def start(num_threads: int) -> None:
    """XLA uses every core that the process may run on."""
    del num_threads


_BASELINES = {
    "jmvae": jmvae.Config(joint_hidden=(512, 512), warmup=0),
    "mvae": mvae.Config(warmup=0),
    "mmvae": mmvae.Config(num_importance=1),
    "mopoe": mopoe.Config(),
    "mvtcae": mvtcae.Config(),
    "mmvae_plus": mmvae_plus.Config(),
}


def build(
    name: str,
    sampler: hmc.Config | None = None,
    rule: product.Kind = jnf.Config.product_rule,
    precision: modalities.Precision = "float32",
):
    """Returns the JNF of a setting and its parameters; with a `sampler`, it has a modality that is never observed.

    Without that, both of two modalities would be answered by the joint encoder, and not by the product.
    """
    unseen = {} if sampler is None else {"unseen": specs_lib.ModalitySpec(shape=(1,))}
    specs, convolutions, given = _networks(settings.SETTINGS[name], unseen)
    config = jnf.Config(
        latent_dim=settings.SETTINGS[name].latent_dim,
        networks=convolutions,
        joint_hidden=(512, 512),
        sampler=sampler or hmc.Config(),
        product_rule=rule,
        precision=precision,
    )
    model = jnf.build(config, specs, networks=given)
    return model, model.init(jax.random.key(0))


def build_baseline(name: str, model: str, precision: modalities.Precision = "float32") -> tuple[base.Model, types.Params]:
    """Returns one of `settings.BASELINES` on a setting and its parameters."""
    setting = settings.SETTINGS[name]
    specs, convolutions, given = _networks(setting)
    dims = {"latent_dim": setting.latent_dim}
    if model == "mmvae_plus":
        dims = {"latent_dim": setting.latent_dim // 2, "private_dim": setting.latent_dim // 2}
    config = dataclasses.replace(_BASELINES[model], networks=convolutions, precision=precision, **dims)
    built = configs.build(config, specs, networks=given)
    return built, built.init(jax.random.key(0))


def _networks(setting: settings.Setting, unseen: specs_lib.Specs | None = None):
    """Returns the specs, the convolutions' configs by modality, and the other modalities' networks."""
    specs = {
        m: specs_lib.ModalitySpec(shape=shape, likelihood="laplace", scale=0.75, support=(0.0, 1.0))
        for m, shape in setting.shapes.items()
    } | (unseen or {})
    kinds = {m: setting.networks.get(m, "mlp") for m in specs}
    convolutions = {
        "svhn": conv.Config(hidden=None, decoder_hidden=None),
        "polymnist": conv.Config(kernel=3, hidden=setting.latent_dim, decoder_hidden=None),
    }
    given = {
        m: networks_base.Networks(encoder=mlp.MLP(hidden=(512, 512)), decoder=mlp.Decoder(hidden=(512,), shape=specs[m].shape))
        for m, kind in kinds.items()
        if kind == "mlp"
    }
    return specs, {m: convolutions[kind] for m, kind in kinds.items() if kind != "mlp"}, given


def data(name: str, num: int) -> types.Batch:
    """Returns random images as our data sets hold them: 8-bit integers."""
    rng = np.random.default_rng(0)
    shapes = settings.SETTINGS[name].shapes
    return {m: jnp.asarray(rng.integers(0, 256, (num, *shape), np.uint8)) for m, shape in shapes.items()}


def prepare(row: settings.Row) -> Callable[[int], float]:
    """Returns a function (amount of work) -> seconds, compiled and ready to be timed."""
    return {"train": train, "draws": draws, "subset": subset, "ess": ess}[row.kind](row)


def timed(compute: Callable[[], object]) -> float:
    """Returns the seconds until the result is there."""
    begun = time.perf_counter()
    jax.block_until_ready(compute())
    return time.perf_counter() - begun


def train(row: settings.Row) -> Callable[[int], float]:
    """Optimiser steps of one stage, on data that lie on the device; `run.flops()` counts those of a sample."""
    size = row.examples_per_step
    if row.what in settings.BASELINES:
        model, params = build_baseline(row.setting, row.what, row.precision)
        (stage,) = model.stages
    else:
        model, params = build(row.setting, precision=row.precision)
        stage = next(stage for stage in model.stages if stage.name == row.what)
    everything = fit.prepare(stage, params, data(row.setting, 10 * size), batch_size=size)
    optimizer = fit.make_optimizer(fit.Config(schedule="constant", clip_norm=None))
    make = functools.partial(step.make_train_call, stage, optimizer, sharding.make_mesh(), batch_size=size)
    state = fit.initial_train_state(stage, params, optimizer)
    frozen = {name: value for name, value in params.items() if name not in stage.trainable}
    arguments = (frozen, jax.random.key(1), everything)
    call = step.compiled_first(make(num_steps=settings.STEPS_PER_CALL))

    def run(amount):
        nonlocal state
        begun = time.perf_counter()
        for _ in range(amount // (size * settings.STEPS_PER_CALL)):
            state, _ = call(state, *arguments)
        jax.block_until_ready(state)
        return time.perf_counter() - begun

    def flops():
        """Counts on a CPU, which counts a program that is not compiled; an accelerator does not."""
        cpu = jax.devices("cpu")[:1]
        mesh = jax.make_mesh((1, 1), sharding.make_mesh().axis_names, axis_types=sharding.make_mesh().axis_types, devices=cpu)
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (state, *arguments))
        with jax.default_device(cpu[0]):
            lowered = step.make_train_call(stage, optimizer, mesh, batch_size=size, num_steps=1).lower(*shapes)
        return lowered.cost_analysis()["flops"] / size

    run.flops = flops
    return run


def draws(row: settings.Row) -> Callable[[int], float]:
    """Draws given the first modality, or the decoding of as many draws; in `1_trained`, with trained flows."""
    model, params = build(row.setting)
    name = next(iter(model.specs))
    if row.what == "1_trained":
        params = _with_trained_flows(model, params)
    observed = {name: data(row.setting, row.amount)[name]}
    if row.what == "decode":
        z = jnp.zeros((row.amount, model.latent_dim))
        compute = lambda: model.decode(params, z)
    else:
        compute = lambda: model.sample_posterior(params, jax.random.key(1), observed, num_samples=1)
    jax.block_until_ready(compute())
    return lambda amount: timed(compute)


def _with_trained_flows(model: base.Model, params: types.Params) -> types.Params:
    """Returns parameters whose experts' flows are one that is fitted to bent and rotated Gaussians."""
    flow = configs.build(jnf.Config().flow, model.latent_dim)
    trained = _fit(flow, targets.rotated(np.random.default_rng(0), 20_000, model.latent_dim), jax.random.key(0))
    flows = jax.tree.map(lambda leaf, of_all: jnp.broadcast_to(leaf, of_all.shape), trained, params["experts"]["flows"])
    return params | {"experts": params["experts"] | {"flows": flows}}


def subset(row: settings.Row) -> Callable[[int], float]:
    """Draws of a subset's posterior by the product sampler: encoders, then chains; many observations in chunks."""
    size, chain, *many = row.what.split("_")
    published = {"rule": "prior"} if chain in ("reference", "published") else {}
    model, params = build(row.setting, hmc.REFERENCE if chain == "reference" else hmc.Config(), **published)
    model = sharded.over(model) if many else model
    names = list(model.specs)[: int(size)]
    observed = {name: x for name, x in data(row.setting, row.num_observations).items() if name in names}
    compute = lambda: model.sample_posterior(params, jax.random.key(1), observed, num_samples=settings.NUM_DRAWS)
    jax.block_until_ready(compute())
    return lambda amount: timed(compute)


def ess(row: settings.Row) -> Callable[[int], float]:
    """Our default chains on a target of known law; `run.trace()` gives their draws, `[N, C, B, D]`."""
    flow, flow_params = target_flow(row.setting)
    base = types.Gaussian(*map(jnp.asarray, targets.bases(row.setting)))
    config = hmc.Config()
    sample = compiling.jit(functools.partial(product.sample, rule(flow), num_samples=settings.TARGET_DRAWS, config=config))
    compute = lambda: sample(product.Shared(flow_params), jax.random.key(1), base)
    result = jax.block_until_ready(compute())

    def run(amount):
        nonlocal result
        begun = time.perf_counter()
        result = jax.block_until_ready(compute())
        return time.perf_counter() - begun

    def trace():
        draws = np.asarray(result[0])
        return draws[::-1].reshape(-1, config.num_chains, *draws.shape[1:])

    run.trace = trace
    run.extra = lambda: {"rhat_largest": float(result[1].rhat.max()), "divergences": int(result[1].divergences.sum())}
    return run


def rule(flow: flow_base.Flow) -> product.Rule:
    """Returns the published product, which targets are of: theirs is no other."""
    return product.Rule(kind="prior", flow=flow)


def target_flow(target: str) -> tuple[flow_base.Flow, types.Params]:
    """Returns the flow of a target's experts and its parameters, leaves `[M, ..]`."""
    dim, num_experts = settings.TARGETS[target]
    if not target.startswith("curved"):
        return identity.build(identity.Config(), dim), {}
    weights = np.load(targets.weights_file(os.environ["BENCHMARK_FILES"]))
    stacked = lambda block, layer, part: jnp.stack([weights[f"{e}/{block}/{layer}/{part}"] for e in range(num_experts)])
    layers = range(len(targets.HIDDEN) + 1)
    params = [[{part: stacked(b, l, part) for part in ("kernel", "bias")} for l in layers] for b in range(2)]
    return _curved(dim), params


def _curved(dim: int) -> flow_base.Flow:
    bounds = {"input_bound": targets.INPUT_BOUND, "log_scale_bound": targets.LOG_SCALE_BOUND}
    return maf.build(maf.Config(hidden=targets.HIDDEN, **bounds), dim)


def train_curved_flows(folder: str, *, num_steps: int = 500) -> None:
    """Fits one flow to each of two bent Gaussians and writes their masked weights."""
    dim, num_experts = settings.TARGETS["curved_20"]
    flow, rng, arrays = _curved(dim), np.random.default_rng(0), {}
    masks = made.masks(dim, targets.HIDDEN)
    for index in range(num_experts):
        data = targets.bent(rng, 20_000, dim, bend=(0.5, -0.3)[index])
        for block, layers in enumerate(_fit(flow, data, jax.random.key(index), num_steps=num_steps)):
            for layer, (values, mask) in enumerate(zip(layers, masks, strict=True)):
                mask = mask.reshape(mask.shape + (1,) * (values["kernel"].ndim - 2))
                arrays[f"{index}/{block}/{layer}/kernel"] = np.asarray(values["kernel"] * mask)
                arrays[f"{index}/{block}/{layer}/bias"] = np.asarray(values["bias"])
    np.savez(targets.weights_file(folder), **arrays)


def _fit(flow: flow_base.Flow, data: np.ndarray, key: types.Array, *, num_steps: int = 500) -> types.Params:
    """Returns parameters of a flow fitted to data `[N, D]`, over a base of scale `targets.BASE_SCALE`."""
    data, dim = jnp.asarray(data), data.shape[1]
    optimizer = optax.adam(2e-3)

    def loss(params, z):
        base = types.Gaussian(jnp.zeros(dim), jnp.full(dim, targets.BASE_SCALE))
        return -jax.vmap(lambda z: expert.log_density(flow, params, base, z))(z).mean()

    @jax.jit
    def fitted(key):
        params = flow.init(key)

        def one(carry, key):
            params, state = carry
            rows = jax.random.randint(key, (256,), 0, len(data))
            updates, state = optimizer.update(jax.grad(loss)(params, data[rows]), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(one, (params, optimizer.init(params)), jax.random.split(key, num_steps))[0][0]

    return fitted(key)


def long_moments(target: str, *, num_draws: int = 4 * 5_000) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns mean and variance `[B, D]` of a target by long chains, and their largest R-hat."""
    flow, flow_params = target_flow(target)
    base = types.Gaussian(*map(jnp.asarray, targets.bases(target)))
    config = hmc.Config(num_warmup=300)
    sample = compiling.jit(functools.partial(product.sample, rule(flow), num_samples=num_draws, config=config))
    draws, info = sample(product.Shared(flow_params), jax.random.key(2), base)
    return np.asarray(draws.mean(0)), np.asarray(draws.var(0)), float(info.rhat.max())
