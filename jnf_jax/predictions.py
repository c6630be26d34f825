"""Modalities generated for every example of a data set: what each one lacks, given all that it has, or all others given the same ones."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jnf_jax import distributions, keys, subsets, types
from jnf_jax.data import source
from jnf_jax.models import base


class Predicted(NamedTuple):
    """One modality of the examples for which it was generated."""

    examples: np.ndarray  # [M], their numbers in the source
    values: np.ndarray  # [S, M, *shape], as the model takes them; `units.original` goes back to those of the file
    rhat: np.ndarray  # [M], of the chains behind them


def predict(
    model: base.Model,
    params: types.Params,
    key: types.Array,
    data: source.Source,
    *,
    given: Sequence[str] | None = None,
    num_samples: int = 20,
    noise: bool = True,
    batch_size: int = 100,
    allocate: Callable[[str, tuple[int, ...], np.dtype], np.ndarray] = lambda name, shape, dtype: np.empty(shape, dtype),
) -> dict[str, Predicted]:
    """Returns draws x_j ~ p(x_j | z), z ~ q(z | x_S), for the modalities j outside S.

    Args:
      model: the model.
      params: its parameters.
      key: of the draws.
      data: the examples; none has all modalities missing.
      given: S, for the examples that have all of it. None: S is what each example has, and only what it lacks is generated, as for
        multiple imputation.
      num_samples: draws of each example.
      noise: whether a draw is an observation, with the likelihood's noise; otherwise its mean.
      batch_size: examples in one call. All calls have one shape, so that one program serves all subsets of a size.
      allocate: (modality, shape, type) -> the array that its draws are written into, one of `np.memmap` where they do not fit in memory.

    Returns:
      modality -> its draws; a modality that no example lacks is not there.

    Raises:
      ValueError: if the data have other modalities than the model, a number is not positive, or `given` is no subset of them, or all of them.
    """
    if set(data.specs) != set(model.specs):
        raise ValueError(f"Expected data of the model's modalities {list(model.specs)}, got {list(data.specs)}.")
    for name, number in {"num_samples": num_samples, "batch_size": batch_size}.items():
        if number < 1:
            raise ValueError(f"Expected a {name} of at least 1, got {number}.")
    groups = list(_groups(model, data, given))
    lacking = {name: [part for subset, part in groups if name not in subset] for name in model.specs}
    examples = {name: np.sort(np.concatenate(parts)) for name, parts in lacking.items() if parts}
    found: dict[str, Predicted] = {}
    size = min(batch_size, max((len(of_subset) for _, of_subset in groups), default=1))
    for subset, of_subset in groups:
        for start in range(0, len(of_subset), size):
            part = of_subset[start : start + size]
            one = keys.stream(keys.stream(key, subsets.label(subset)), "batch", start)
            observed = {name: data.arrays[name][np.resize(part, size)] for name in subset}
            z, info = model.sample_posterior(params, one, observed, num_samples=num_samples)
            decoded = model.decode(params, z)
            rhat = np.asarray(info.rhat)[: len(part)]
            for name in model.specs:
                if name not in subset:
                    values = _values(model, name, keys.stream(one, name), decoded[name], noise=noise)[:, : len(part)]
                    if name not in found:
                        shape = (num_samples, len(examples[name]), *values.shape[2:])
                        found[name] = Predicted(
                            examples[name], allocate(name, shape, values.dtype), np.empty(shape[1], rhat.dtype)
                        )
                    places = np.searchsorted(examples[name], part)
                    found[name].values[:, places], found[name].rhat[places] = values, rhat
    return {name: found[name] for name in model.specs if name in found}


def _groups(model: base.Model, data: source.Source, given: Sequence[str] | None) -> Iterator[tuple[subsets.Subset, np.ndarray]]:
    """Yields subsets to observe, each with the numbers of its examples."""
    names = tuple(model.specs)
    if given is not None:
        subset = subsets.parse(names, ",".join(given))
        if not subset or len(subset) == len(names):
            raise ValueError(f"Expected some of the modalities {list(names)} as given, and not all, got {list(given)}.")
        if len(examples := np.flatnonzero(data.having(subset))):
            yield subset, examples
        return
    there = np.stack([data.having((name,)) for name in names], axis=1)  # [N, J]
    for pattern in np.unique(there, axis=0):
        if not pattern.all():
            subset = tuple(name for name, has in zip(names, pattern, strict=True) if has)
            yield subset, np.flatnonzero((there == pattern).all(axis=1))


def _values(model: base.Model, name: str, key: types.Array, parameters: Any, *, noise: bool) -> np.ndarray:
    spec = model.specs[name]
    return np.asarray(distributions.sample(spec, key, parameters) if noise else distributions.mean(spec, parameters))
