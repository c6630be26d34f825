"""Hamiltonian Monte Carlo over many observations at once, through BlackJAX.

For each observation C chains run side by side, under a diagonal metric that the caller knows something about. Warm-up goes in windows:
in each, dual averaging tunes one step size per observation to the mean acceptance of its chains; after each but the last, the
metric is set to the pooled variance of the window's second half. A short warm-up is one window and keeps the metric. The number
of leapfrog steps is drawn anew at every iteration, one for all chains (a fixed one meets resonances, and one a chain would make
every chain wait for the longest), as many as a trajectory of the wanted length takes at the median step size.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import blackjax
import jax
import jax.numpy as jnp
from blackjax.adaptation import step_size as step_size_adaptation

from jnf_jax import configs, types

Target = Callable[[Any, types.Array], types.Array]
_WINDOW = 50  # iterations of warm-up between two metrics, about


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """The chains behind a product of experts.

    Attributes:
      num_chains: chains per observation; None for one chain a draw.
      num_warmup: iterations thrown away (and adapted in) before the first draw, in windows of about 50; the metric adapts from the
        second window on, that is from 75 iterations.
      thinning: iterations per kept draw.
      min_iterations: least number of iterations after warm-up, so that R-hat has something to go by; rounded up to whole draws.
      max_leapfrog_steps: an iteration takes at most so many leapfrog steps: 1 to the most, uniformly, or the most where `jitter` is off.
      trajectory: longest time a trajectory lasts (steps times step size; half a turn around a Gaussian of the metric's scale takes
        pi), which makes the steps fewer where the median step size over the observations is large; None: the steps alone count.
      jitter: whether the number of leapfrog steps is random.
      adapt: whether step size and metric are adapted; otherwise `step_size` and the unit metric are used throughout.
      step_size: leapfrog step size where it is not adapted.
      target_acceptance: acceptance probability that the step size is tuned to.
      num_pilots: draws of each expert behind the first metric.
      outside: the product is confined to the ball that holds all but this share of the prior's mass; None: it is not.
      start: `expert`: chains start at draws of the experts in turn; `base`: at draws of their base Gaussians, flow not inverted.
    """

    num_chains: int | None = 4
    num_warmup: int = 30
    thinning: int = 2
    min_iterations: int = 20
    max_leapfrog_steps: int = 16
    trajectory: float | None = 3.0
    jitter: bool = True
    adapt: bool = True
    step_size: float = 0.1
    target_acceptance: float = 0.8
    num_pilots: int = 16
    outside: float | None = 1e-3
    start: Literal["expert", "base"] = "expert"

    def __post_init__(self):
        super().__post_init__()
        if self.num_chains is not None and self.num_chains < 1:
            raise ValueError(f"Expected at least one chain, got {self.num_chains}.")
        for name in ("thinning", "min_iterations", "max_leapfrog_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected a {name} of at least 1, got {getattr(self, name)}.")
        if self.trajectory is not None and self.trajectory <= 0:
            raise ValueError(f"Expected a trajectory that lasts longer than 0, got {self.trajectory}.")
        if self.outside is not None and not 0 < self.outside < 1:
            raise ValueError(f"Expected a share of the prior's mass outside between 0 and 1, or None, got {self.outside}.")
        if self.num_pilots < 2:
            raise ValueError(f"Expected at least 2 pilot draws, got {self.num_pilots}.")
        if self.adapt and self.num_warmup < 20:
            raise ValueError(f"Expected at least 20 warm-up iterations to adapt in, got {self.num_warmup}.")

    def chains_for(self, num_samples: int) -> int:
        """Returns C for S draws."""
        return num_samples if self.num_chains is None else self.num_chains

    def draws_for(self, num_samples: int) -> int:
        """Returns the number of draws of each chain after warm-up, those that serve the diagnostics alone included."""
        return max(-(-num_samples // self.chains_for(num_samples)), -(-self.min_iterations // self.thinning))

    def iterations_for(self, num_samples: int) -> int:
        """Returns the number of iterations of each chain after warm-up."""
        return self.thinning * self.draws_for(num_samples)


REFERENCE = Config(
    num_chains=None,
    num_warmup=99,
    thinning=1,
    min_iterations=1,
    max_leapfrog_steps=10,
    trajectory=None,
    jitter=False,
    adapt=False,
    step_size=0.01,
    outside=None,
    start="base",
)
"""The authors' published setting: 100 iterations of 10 steps of 0.01, unit metric, the last state kept. It moves slowly."""


def sample(
    target: Target,
    key: types.Array,
    data: Any,
    starts: types.Array,
    variance: types.Array,
    *,
    num_samples: int,
    config: Config,
) -> tuple[types.Array, types.Array, types.Info]:
    """Returns draws for every observation.

    Behind the S draws of an observation stand C chains of `num_warmup + iterations_for(S)` iterations each; every chain keeps its last
    ceil(S / C) states that lie `thinning` iterations apart.

    Args:
      target: (one observation's data, z `[D]`) -> log density `[]`.
      key: random key.
      data: pytree, leaves `[B, ..]`.
      starts: `[B, C, D]`.
      variance: `[B, D]` first guess of the variance of the target.
      num_samples: S.
      config: of the chains.

    Returns:
      z `[S, B, D]`, the last states `[B, C, D]`, and the Info (`improper` is left False).
    """
    warmup_key, chain_key = jax.random.split(key)
    states = jax.vmap(lambda data, z: jax.vmap(lambda z: blackjax.hmc.init(z, lambda z: target(data, z)))(z))(data, starts)
    move = _transition(target, data, config)
    if config.adapt:
        states, step_size, variance = _warm_up(move, warmup_key, states, variance, config)
    else:
        step_size = jnp.full(len(starts), config.step_size, starts.dtype)
        variance = jnp.ones_like(variance)
        states, _ = jax.lax.scan(
            lambda s, k: (move(k, s, step_size, variance)[0], None), states, jax.random.split(warmup_key, config.num_warmup)
        )

    def step(states, key):
        states, info = move(key, states, step_size, variance)
        return states, (states.logdensity, info.acceptance_rate.mean(1), info.is_divergent.sum(1))

    def thinned(states, key):
        states, trace = jax.lax.scan(step, states, jax.random.split(key, config.thinning))
        return states, (states.position, trace)

    states, (draws, trace) = jax.lax.scan(thinned, states, jax.random.split(chain_key, config.draws_for(num_samples)))
    log_density, acceptance, divergences = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), trace)
    # draws [N, B, C, D] -> [C N, B, D]: the chains' last draws come first, so that few draws come from different chains
    draws = draws[::-1].swapaxes(1, 2).reshape(-1, starts.shape[0], starts.shape[2])[:num_samples]
    info = _info(log_density, acceptance, divergences, step_size)
    return draws, states.position, info


def by_chain(draws: types.Array, num_chains: int) -> types.Array:
    """Returns draws of `sample` by the chains that made them, each in the order of its iterations.

    Args:
      draws: `[S, B, ..]`, of the model's `sample_posterior` for instance.
      num_chains: C that stood behind them, `config.chains_for(S)`. Exact draws may be cut into any number of chains.

    Returns:
      `[C, N, B, ..]`, N = S // C; the first states of some chains are left out where C does not divide S.

    Raises:
      ValueError: if there is no draw of each chain.
    """
    if not 1 <= num_chains <= len(draws):
        raise ValueError(f"Expected from 1 to {len(draws)} chains behind {len(draws)} draws, got {num_chains}.")
    length = len(draws) // num_chains
    rounds = draws[: length * num_chains].reshape(length, num_chains, *draws.shape[1:])  # the last round comes first
    return rounds[::-1].swapaxes(0, 1)


def _transition(target: Target, data: Any, config: Config):
    """Returns one iteration of all chains: (key, states, step_size `[B]`, variance `[B, D]`) -> (states, info)."""
    kernel = blackjax.hmc.build_kernel()

    def one(key, state, data, step_size, variance, num_steps):
        return kernel(key, state, lambda z: target(data, z), step_size, variance, num_steps)

    chains = jax.vmap(one, in_axes=(0, 0, None, None, None, None))
    observations = jax.vmap(chains, in_axes=(0, 0, 0, 0, 0, None))

    def move(key, states, step_size, variance):
        count_key, chain_key = jax.random.split(key)
        num_steps = jnp.asarray(config.max_leapfrog_steps)
        if config.trajectory is not None:
            enough = jnp.ceil(config.trajectory / jnp.median(step_size))
            num_steps = jnp.clip(enough, 1, config.max_leapfrog_steps).astype(num_steps.dtype)
        if config.jitter:
            num_steps = jax.random.randint(count_key, (), 1, num_steps + 1)
        keys = jax.random.split(chain_key, states.position.shape[:2])
        return observations(keys, states, data, step_size, variance, num_steps)

    return move


def _warm_up(move, key, states, variance, config: Config):
    """Returns the states after warm-up, the step size `[B]` and the variance `[B, D]`."""
    num_windows = max(1, round(config.num_warmup / _WINDOW))
    length = -(-config.num_warmup // num_windows)
    init, update, final = step_size_adaptation.dual_averaging_adaptation(config.target_acceptance)

    def window(carry, xs):
        states, step_size, variance = carry
        key, last = xs

        def step(carry, key):
            states, averaging = carry
            states, info = move(key, states, jnp.exp(averaging.log_step_size), variance)
            acceptance = jnp.nan_to_num(info.acceptance_rate).mean(1)
            averaging = jax.vmap(update)(averaging, acceptance)
            return (states, averaging), states.position

        (states, averaging), positions = jax.lax.scan(step, (states, jax.vmap(init)(step_size)), jax.random.split(key, length))
        # a metric learnt in the last window would have no step size of its own
        variance = jnp.where(last, variance, _pooled_variance(positions[length // 2 :], variance))
        return (states, jax.vmap(final)(averaging), variance), None

    start = jnp.full(variance.shape[:1], variance.shape[-1] ** -0.25, variance.dtype)
    windows = (jax.random.split(key, num_windows), jnp.arange(num_windows) == num_windows - 1)
    return jax.lax.scan(window, (states, start, variance), windows)[0]


def _pooled_variance(positions: types.Array, guess: types.Array, *, weight: float = 10.0) -> types.Array:
    """Returns the variance `[B, D]` over iterations and chains of `[N, B, C, D]`, shrunk towards `guess`."""
    num = positions.shape[0] * positions.shape[2]
    return (num * positions.var(axis=(0, 2)) + weight * guess) / (num + weight)


def _info(log_density, acceptance, divergences, step_size) -> types.Info:
    """Summarises traces `[N, B, C]`, `[N, B]`, `[N, B]`."""
    traces = log_density.transpose(1, 2, 0)  # [B, C, N]
    if traces.shape[-1] >= 4 and traces.shape[1] * traces.shape[-1] >= 8:
        rhat = jax.vmap(lambda t: blackjax.rhat(t, chain_axis=0, sample_axis=1))(traces)
        ess = jax.vmap(lambda t: blackjax.ess_bulk(t, chain_axis=0, sample_axis=1))(traces)
    else:  # too short to tell
        rhat = ess = jnp.full(traces.shape[:1], jnp.nan, traces.dtype)
    return types.Info(
        acceptance=acceptance.mean(0),
        divergences=divergences.sum(0),
        rhat=rhat,
        ess=ess,
        improper=jnp.zeros(traces.shape[:1], bool),
        step_size=step_size,
    )
