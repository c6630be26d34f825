"""Hamiltonian Monte Carlo over many observations at once, through BlackJAX.

For each observation C chains run side by side, under a diagonal metric that the caller knows something about. Warm-up goes in windows:
in each, dual averaging tunes one step size per observation to the mean acceptance of its chains; after each but the last, the
metric is set to the pooled variance of the window's second half. A short warm-up is one window and keeps the metric. The number
of leapfrog steps is drawn anew at every iteration, one for all chains (a fixed one meets resonances, and one a chain would make
every chain wait for the longest), as many as a trajectory of the wanted length takes at the median step size.

BlackJAX is imported with the first chain: that takes a fifth of a second or more, and training has no chains.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

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

    def kept_for(self, num_samples: int) -> int:
        """Returns the largest number of draws that the chains behind S draws have: any smaller one is a part of them."""
        return num_samples if self.num_chains is None else self.num_chains * self.draws_for(num_samples)


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
) -> tuple[types.Array, Any, types.Info]:
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
      z `[S, B, D]`, the chains' last states, positions `[B, C, D]` and log densities `[B, C]` among them, and the Info (`improper` is
      left False).

    Raises:
      ValueError: if C is not `config.chains_for(num_samples)`.
    """
    import blackjax

    if starts.ndim != 3 or starts.shape[1] != config.chains_for(num_samples):
        raise ValueError(
            f"Expected starts (B, {config.chains_for(num_samples)}, D), one for each chain of {num_samples} draws, got {starts.shape}."
        )
    warmup_key, chain_key = jax.random.split(key)
    states = blackjax.mcmc.hmc.HMCState(starts, jnp.full(starts.shape[:2], -jnp.inf, starts.dtype), jnp.zeros_like(starts))
    move = _transition(target, data, config)
    num_windows = max(1, round(config.num_warmup / _WINDOW)) if config.adapt else 1
    length = -(-config.num_warmup // num_windows)
    num_warmup, num_draws = num_windows * length, config.draws_for(num_samples)
    keys = jnp.concatenate([_nested_keys(warmup_key, num_windows, length), _nested_keys(chain_key, num_draws, config.thinning)])
    if config.adapt:
        tuning = _begin_tuning(jnp.full(variance.shape[:1], variance.shape[-1] ** -0.25, variance.dtype), variance)
    else:
        tuning = _begin_tuning(jnp.full(len(starts), config.step_size, starts.dtype), jnp.ones_like(variance))
    num_iterations = num_draws * config.thinning
    trace = _Trace(
        positions=jnp.zeros((num_draws, *starts.shape), starts.dtype),
        log_density=jnp.zeros((num_iterations, *starts.shape[:2]), states.logdensity.dtype),
        acceptance=jnp.zeros((num_iterations, len(starts)), starts.dtype),
        divergences=jnp.zeros((num_iterations, len(starts)), int),
    )

    def iterate(i, carry):
        # Warm-up and what comes after it are one loop, so that the chains' step is compiled once. Before them a step of size 0 is accepted for
        # certain, from a density of 0, and brings the density and the gradient where the chains start.
        states, tuning, trace = carry
        states, info = move(keys[jnp.maximum(i, 0)], states, tuning.step_size, tuning.variance, i >= 0)
        if config.adapt:
            tune = lambda tuning: _tune(tuning, i, length, num_warmup, info, states.position, config.target_acceptance)
            tuning = jax.lax.cond((i >= 0) & (i < num_warmup), tune, lambda tuning: tuning, tuning)
        after = jnp.maximum(i - num_warmup, 0)  # what warm-up writes is overwritten
        trace = _Trace(
            positions=trace.positions.at[after // config.thinning].set(states.position),
            log_density=trace.log_density.at[after].set(states.logdensity),
            acceptance=trace.acceptance.at[after].set(info.acceptance_rate.mean(1)),
            divergences=trace.divergences.at[after].set(info.is_divergent.sum(1)),
        )
        return states, tuning, trace

    states, tuning, trace = jax.lax.fori_loop(-1, len(keys), iterate, (states, tuning, trace))
    # draws [N, B, C, D] -> [C N, B, D]: the chains' last draws come first, so that few draws come from different chains
    draws = trace.positions[::-1].swapaxes(1, 2).reshape(-1, starts.shape[0], starts.shape[2])[:num_samples]
    info = _info(trace.log_density, trace.acceptance, trace.divergences, tuning.step_size)
    return draws, states, info


class _Trace(NamedTuple):
    """What is kept of chains."""

    positions: types.Array  # [draws, B, C, D]
    log_density: types.Array  # [iterations, B, C]
    acceptance: types.Array  # [iterations, B], means over chains
    divergences: types.Array  # [iterations, B], of all chains


class _Tuning(NamedTuple):
    """What warm-up tunes, and what it goes by."""

    step_size: types.Array  # [B]
    variance: types.Array  # [B, D] the metric
    averaging: Any  # dual averaging's state, leaves [B]
    count: types.Array  # [] states of a chain in the second half of the window, so far
    mean: types.Array  # [B, D] of them
    squares: types.Array  # [B, D] sum of their squared deviations


def _nested_keys(key: types.Array, num: int, each: int) -> types.Array:
    """Returns num times each keys, in one row."""
    return jax.vmap(lambda key: jax.random.split(key, each))(jax.random.split(key, num)).reshape(-1)


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
    """Returns one iteration of all chains: (key, states, step_size `[B]`, variance `[B, D]`, moving) -> (states, info).

    Where it is not moving, it takes one step of size 0.
    """
    import blackjax

    kernel = blackjax.hmc.build_kernel()

    def one(key, state, data, step_size, variance, num_steps):
        return kernel(key, state, lambda z: target(data, z), step_size, variance, num_steps)

    chains = jax.vmap(one, in_axes=(0, 0, None, None, None, None))
    observations = jax.vmap(chains, in_axes=(0, 0, 0, 0, 0, None))

    def move(key, states, step_size, variance, moving):
        count_key, chain_key = jax.random.split(key)
        num_steps = jnp.asarray(config.max_leapfrog_steps)
        if config.trajectory is not None:
            enough = jnp.ceil(config.trajectory / jnp.median(step_size))
            num_steps = jnp.clip(enough, 1, config.max_leapfrog_steps).astype(num_steps.dtype)
        if config.jitter:
            num_steps = jax.random.randint(count_key, (), 1, num_steps + 1)
        keys = jax.random.split(chain_key, states.position.shape[:2])
        return observations(keys, states, data, jnp.where(moving, step_size, 0), variance, jnp.where(moving, num_steps, 1))

    return move


def _begin_tuning(step_size: types.Array, variance: types.Array) -> _Tuning:
    """Returns the state before a window, given the step size `[B]` and the metric `[B, D]`."""
    init, _, _ = _dual_averaging(0.0)
    # blackjax begins some of its averages in JAX's default precision, which need not be the chains'
    averaging = jax.tree.map(
        lambda leaf: leaf.astype(step_size.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        jax.vmap(init)(step_size),
    )
    nothing = jnp.zeros_like(variance)
    return _Tuning(step_size, variance, averaging, jnp.zeros((), variance.dtype), nothing, nothing)


def _tune(
    tuning: _Tuning, i: types.Array, length: int, num_warmup: int, info, positions: types.Array, target_acceptance: float
) -> _Tuning:
    """Returns the state after iteration `i`, which ended at positions `[B, C, D]`, of windows of `length` iterations."""
    _, update, final = _dual_averaging(target_acceptance)
    averaging = jax.vmap(update)(tuning.averaging, jnp.nan_to_num(info.acceptance_rate).mean(1))
    counted = jnp.asarray(i % length >= length // 2, tuning.count.dtype)
    tuning = _count(tuning, positions, counted)._replace(averaging=averaging, step_size=jnp.exp(averaging.log_step_size))
    # a metric learnt in the last window would have no step size of its own
    variance = jnp.where(i == num_warmup - 1, tuning.variance, _pooled_variance(tuning))
    ended = i % length == length - 1
    following = _begin_tuning(jax.vmap(final)(averaging), variance)
    return jax.tree.map(lambda new, old: jnp.where(ended, new, old), following, tuning)


def _dual_averaging(target_acceptance: float):
    from blackjax.adaptation import step_size

    return step_size.dual_averaging_adaptation(target_acceptance)


def _count(tuning: _Tuning, positions: types.Array, counted: types.Array) -> _Tuning:
    """Returns the state with the moments of positions `[B, C, D]` added, once or not at all (Chan et al., 1979)."""
    num = counted * positions.shape[1]
    total = tuning.count + num
    change = positions.mean(1) - tuning.mean
    share = num / jnp.maximum(total, 1)
    squares = tuning.squares + counted * positions.shape[1] * positions.var(1) + change**2 * tuning.count * share
    return tuning._replace(count=total, mean=tuning.mean + share * change, squares=squares)


def _pooled_variance(tuning: _Tuning, *, weight: float = 10.0) -> types.Array:
    """Returns the variance `[B, D]` over the states counted, shrunk towards the metric they were drawn under."""
    return (tuning.squares + weight * tuning.variance) / (tuning.count + weight)


def _info(log_density, acceptance, divergences, step_size) -> types.Info:
    """Summarises traces `[N, B, C]`, `[N, B]`, `[N, B]`."""
    import blackjax

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
