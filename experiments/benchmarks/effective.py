"""Effective draws a second, and whether they are draws of the right law."""

import functools
import pathlib
import tempfile

import blackjax
import jax
import numpy as np

from experiments.benchmarks import ours, settings, targets

_STANDARD_ERRORS = 5.0


def row(workload: settings.Row, sides: dict, seconds: dict[str, float]) -> dict:
    """Returns the row of a target: both sides' effective draws a second, from the traces of their last runs.

    An observation counts the bulk ESS of its worst coordinate. A law is right where the mean square of (z - mean) / sd over all
    observations, coordinates and draws is 1 within 5 standard errors; of the peer's chains only the last state of each is a draw.
    """
    exact = not workload.setting.startswith("curved")
    mean, variance = targets.exact_moments(workload.setting) if exact else ours.long_moments(workload.setting)[:2]
    result: dict = {"name": workload.name, "unit": "effective draws/s", "ours": None, "theirs": None, "ratio": None}
    for name, side in sides.items():
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "trace.npy"
            extra = side.ask(f"trace {path}")
            trace = np.load(path)  # [N, C, B, D]
        total = ess(trace).min(-1).sum()
        draws = trace if name == "ours" else trace[-1:]
        square, error = mean_square(draws, mean, variance)
        result[name] = float(total / seconds[name])
        result[f"{name}_details"] = extra | {
            "seconds": seconds[name],
            "effective_draws": float(total),
            "draws": int(np.prod(draws.shape[:3])),
            "standardised_mean_square": square,
            "standard_error": error,
            "right_law": bool(abs(square - 1) < _STANDARD_ERRORS * error),
            "rhat_of_coordinates_largest": float(rhat(trace).max()),
        }
    if result["theirs"] is not None:
        result["ratio"] = result["ours"] / result["theirs"]
        granted = result["theirs_details"]["draws"] / seconds["theirs"]
        result["ratio_were_each_of_their_draws_effective"] = result["ours"] / granted
    return result


def mean_square(draws: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Returns the mean of (z - mean)^2 / variance and its standard error."""
    squares = (draws - mean) ** 2 / variance
    if len(draws) > 1:
        effective = ess(squares).sum()
    else:  # one state of each of many chains
        effective = squares.size
    return float(squares.mean()), float(squares.std() / np.sqrt(effective))


def ess(values: np.ndarray) -> np.ndarray:
    """Returns the bulk effective sample size `[B, D]` of chains `[N, C, B, D]`."""
    return np.asarray(jax.jit(functools.partial(blackjax.ess_bulk, chain_axis=1, sample_axis=0))(values))


def rhat(values: np.ndarray) -> np.ndarray:
    """Returns the split R-hat `[B, D]` of chains `[N, C, B, D]`."""
    return np.asarray(jax.jit(functools.partial(blackjax.rhat, chain_axis=1, sample_axis=0))(values))
