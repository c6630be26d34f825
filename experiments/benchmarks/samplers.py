"""Which sampler, and which settings, by effective draws a second on the targets of known law.

    python -m experiments.benchmarks.samplers [--target curved_20] [--output samplers.json]

Everything is compiled and vmapped over observations in the same way and begins at the same draws of the experts; a time includes warm-up,
not compilation. Other samplers than ours are BlackJAX's, with its own adaptation.
"""

import dataclasses
import functools
import json
import os
import pathlib
import statistics
import tempfile
from collections.abc import Callable

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.benchmarks import effective, ours, targets
from jnf_jax import compiling, types
from jnf_jax.posteriors import hmc, product


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compares samplers.

    Attributes:
      target: one of `settings.TARGETS`.
      num_draws: iterations of every chain after its warm-up.
      output: where the results go.
    """

    target: str = "curved_20"
    num_draws: int = 500
    output: pathlib.Path = pathlib.Path(__file__).parent / "samplers.json"


@dataclasses.dataclass(frozen=True)
class Target:
    """The products of a target: what a sampler is given.

    Attributes:
      log_density: (one observation's base Gaussians, z) -> [].
      base: loc, scale `[B, M, D]`.
      starts: `[B, C, D]` of 16 chains.
      variance: `[B, D]` by the experts' draws.
    """

    log_density: Callable
    base: types.Gaussian
    starts: types.Array
    variance: types.Array


def main() -> None:
    """Runs the script."""
    arguments = tyro.cli(Arguments, prog="python -m experiments.benchmarks.samplers")
    with tempfile.TemporaryDirectory() as files:
        os.environ["BENCHMARK_FILES"] = files
        ours.train_curved_flows(files)
        target = make_target(arguments.target)
        results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
        results[arguments.target] = {}
        for name, sample in samplers(target, arguments.num_draws).items():
            results[arguments.target][name] = measured = measure(sample)
            arguments.output.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{name:44s} " + ", ".join(f"{key} {value:.4g}" for key, value in measured.items()), flush=True)


def make_target(name: str) -> Target:
    """Returns a target and where its chains begin."""
    flow, params = ours.target_flow(name)
    base = types.Gaussian(*map(jnp.asarray, targets.bases(name)))
    pilots = jax.jit(functools.partial(product._pilot_draws, flow, num=16, invert=True))(params, jax.random.key(0), base)

    def log_density(base, z):
        return product.log_density(ours.rule(flow), product.Shared(params), base, z) - product.wall(z, hmc.Config().outside)

    return Target(log_density, base, product._starts(pilots, 16), product._product_variance(pilots))


def measure(sample: Callable[[types.Array], types.Array], repeats: int = 3) -> dict[str, float]:
    """Returns seconds and effective draws of a sampler, a function of a key that returns draws `[N, C, B, D]`."""
    sample = compiling.jit(sample)
    first = ours.timed(lambda: sample(jax.random.key(0)))
    seconds = statistics.median(ours.timed(lambda: sample(jax.random.key(1))) for _ in range(repeats))
    draws = np.asarray(sample(jax.random.key(1)))
    total = effective.ess(draws).min(-1).sum()
    return {
        "effective draws/s": float(total / seconds),
        "seconds": seconds,
        "first call": first,
        "draws": float(np.prod(draws.shape[:3])),
        "effective": float(total),
        "largest R-hat of a coordinate": float(effective.rhat(draws).max()),
    }


def samplers(target: Target, num_draws: int) -> dict[str, Callable]:
    """Returns name -> function (key) -> draws `[N, C, B, D]`."""
    found = {}
    for num_warmup in (30, 50, 200):
        for most, trajectory in ((8, None), (16, None), (32, None), (16, 2.5), (16, 3.0), (16, 4.0)):
            config = hmc.Config(num_warmup=num_warmup, max_leapfrog_steps=most, trajectory=trajectory, thinning=1)
            metric = "experts' metric" if num_warmup < 75 else "window"
            length = f"1..{most} steps" if trajectory is None else f"up to {trajectory} long"
            found[f"HMC, {metric}, warm-up {num_warmup}, {length}"] = functools.partial(_hmc, target, num_draws, config)
    found["NUTS, window, warm-up 100"] = functools.partial(_nuts, target, num_draws)
    found["ChEES, 16 chains, warm-up 100"] = functools.partial(_chees, target, num_draws)
    found["MEADS, 16 chains, warm-up 200"] = functools.partial(_meads, target, num_draws)
    found["MCLMC (unadjusted), warm-up 500"] = functools.partial(_mclmc, target, 4 * num_draws)
    return found


def _hmc(target: Target, num_draws: int, config: hmc.Config, key):
    num_chains = config.num_chains
    draws, _, _ = hmc.sample(
        target.log_density, key, target.base, target.starts[:, :num_chains], target.variance,
        num_samples=num_chains * num_draws, config=config,
    )  # fmt: skip
    return draws[::-1].reshape(num_draws, num_chains, *draws.shape[1:])


def _each(target: Target, one: Callable, key, num_chains: int):
    """Runs `one(log density, start, variance, key) -> draws [N, D]` for every chain of every observation."""
    keys = jax.random.split(key, (len(target.starts), num_chains))
    chain = lambda base, start, variance, key: one(functools.partial(target.log_density, base), start, variance, key)
    chains = jax.vmap(chain, in_axes=(None, 0, None, 0))
    draws = jax.vmap(chains)(target.base, target.starts[:, :num_chains], target.variance, keys)  # [B, C, N, D]
    return draws.transpose(2, 1, 0, 3)


def _together(target: Target, one: Callable, key):
    """Runs `one(log density, starts [C, D], key) -> draws [N, C, D]` for every observation."""
    run = lambda base, starts, key: one(functools.partial(target.log_density, base), starts, key)
    draws = jax.vmap(run)(target.base, target.starts, jax.random.split(key, len(target.starts)))  # [B, N, C, D]
    return draws.transpose(1, 2, 0, 3)


def _iterate(step: Callable, state, key, num_draws: int):
    def one(state, key):
        state, _ = step(key, state)
        return state, state.position

    return jax.lax.scan(one, state, jax.random.split(key, num_draws))[1]


def _nuts(target: Target, num_draws: int, key):
    def one(log_density, start, variance, key):
        warm_key, key = jax.random.split(key)
        warm_up = blackjax.window_adaptation(
            blackjax.nuts, log_density, initial_inverse_mass_matrix=variance, adaptation_info_fn=lambda *_: None
        )
        (state, parameters), _ = warm_up.run(warm_key, start, 100)
        return _iterate(blackjax.nuts(log_density, **parameters).step, state, key, num_draws)

    return _each(target, one, key, 4)


def _chees(target: Target, num_draws: int, key):
    def one(log_density, starts, key):
        warm_key, key = jax.random.split(key)
        warm_up = blackjax.chees_adaptation(
            log_density, len(starts), max_leapfrog_steps=32, mass_matrix_estimation="diagonal",
            adaptation_info_fn=lambda *_: None,
        )  # fmt: skip
        (states, parameters), _ = warm_up.run(warm_key, starts, 0.1, optax.adam(0.05), 100)
        step = blackjax.dhmc(log_density, **parameters).step
        return _iterate(lambda k, s: jax.vmap(step)(jax.random.split(k, len(starts)), s), states, key, num_draws)

    return _together(target, one, key)


def _meads(target: Target, num_draws: int, key):
    def one(log_density, starts, key):
        warm_key, key = jax.random.split(key)
        warm_up = blackjax.meads_adaptation(log_density, len(starts), adaptation_info_fn=lambda *_: None)
        (states, parameters), _ = warm_up.run(warm_key, starts, 200)
        step = blackjax.ghmc(log_density, **parameters).step
        return _iterate(lambda k, s: jax.vmap(step)(jax.random.split(k, len(starts)), s), states, key, num_draws)

    return _together(target, one, key)


def _mclmc(target: Target, num_draws: int, key):
    def one(log_density, start, variance, key):
        del variance
        init_key, warm_key, key = jax.random.split(key, 3)
        state = blackjax.mclmc.init(position=start, logdensity_fn=log_density, rng_key=init_key)
        kernel = blackjax.mclmc.build_kernel()
        state, found, *_ = blackjax.mclmc_find_L_and_step_size(
            mclmc_kernel=kernel, num_steps=500, state=state, rng_key=warm_key, logdensity_fn=log_density
        )
        step = blackjax.mclmc(log_density, **found._asdict()).step
        return _iterate(step, state, key, num_draws)

    return _each(target, one, key, 4)


if __name__ == "__main__":
    main()
