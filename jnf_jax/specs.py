"""What a modality is: its shape, its likelihood and the range of its values.

Data sets declare their modalities with it, models build their networks from it. No array library is imported here.
"""

import dataclasses
import importlib
import math
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from jnf_jax import configs

Likelihood = Literal["gaussian", "laplace", "bernoulli", "categorical", "negative_binomial"]
Values = Literal["reals", "binary", "categories", "counts"]

LIKELIHOODS: dict[Likelihood, Values] = {  # what each is a distribution of
    "gaussian": "reals",
    "laplace": "reals",
    "bernoulli": "binary",
    "categorical": "categories",
    "negative_binomial": "counts",
}
VALUES: tuple[Values, ...] = get_args(Values)

_BESIDE_THE_LAW = ("library", "layout", "unit", "labels", "mean", "deviation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModalitySpec:
    """One modality.

    Integer data of a modality of reals with a `support` is 8-bit: 0..255 stands for the support's two ends.

    Attributes:
      shape: shape of one example, without the batch axis.
      likelihood: `gaussian` or `laplace` (real values), `bernoulli` (0 or 1), `categorical` (integers 0..num_categories-1),
        `negative_binomial` (counts, of any integer or float type), or the config of any file in `likelihoods/`, or of one's own.
      scale: standard deviation of the Gaussian, or b of the Laplace distribution, in units of the data; the middle of a learnt scale's range.
      support: (low, high) of the values, None where they are unbounded; decoders then end in a sigmoid onto it.
      num_categories: number of categories of a modality of categories.
      library: total count of an example that is generated, for a likelihood of counts given their total, as `negative_binomial`; for instance
        the mean over the training examples. The likelihood of an observed example takes the example's own total count.
      layout: how people look at it: `grid`, an image or values in rows; `path`, a vector x, y, x, y, .. of points of a curve;
        `spectrogram`, frames by bands, in false colours, time to the right and the first band at the bottom.
      unit: of the values, as pictures name it: `mmol/l`.
      labels: names of the categories, or of the entries of a vector, for pictures.
      mean: of every entry, in the units of the file, where a reader standardised real values by it; `units.original` goes back.
      deviation: what the reader divided every entry by.
    """

    shape: tuple[int, ...]
    likelihood: Any = "gaussian"  # a `Likelihood` or a `configs.Component`; of the two in one annotation no flag can be made
    scale: float = 1.0
    support: tuple[float, float] | None = None
    num_categories: int | None = None
    library: float | None = None
    layout: Literal["grid", "path", "spectrogram"] = "grid"
    unit: str | None = None
    labels: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None

    def __post_init__(self):
        if not isinstance(self.shape, Iterable):
            raise ValueError(f"Expected a shape of one or more positive integers, as (3,), got {self.shape!r}.")
        object.__setattr__(self, "shape", tuple(map(_plain, self.shape)))
        if self.support is not None:
            object.__setattr__(self, "support", tuple(map(_plain, self.support)))
        for name in ("scale", "num_categories", "library"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        for name in ("mean", "deviation"):
            if isinstance(values := getattr(self, name), Iterable):
                object.__setattr__(self, name, tuple(map(_plain, values)))
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "likelihood", _likelihood(self.likelihood))
        if not self.shape or any(not isinstance(n, int) or n < 1 for n in self.shape):
            raise ValueError(f"Expected a shape of one or more positive integers, got {self.shape}.")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"Expected a positive, finite scale, got {self.scale}.")
        if (self.values == "categories") != (self.num_categories is not None):
            raise ValueError(
                f"Expected num_categories for a categorical modality and for no other, got {self.num_categories} for {self.likelihood_name}."
            )
        if self.given_total != (self.library is not None):
            raise ValueError(
                f"Expected a library for a modality of counts given their total and for no other, got {self.library} for {self.likelihood_name}."
            )
        if self.library is not None and not self.library > 0:
            raise ValueError(f"Expected a positive library, got {self.library}.")
        if self.given_total and self.size < 2:
            raise ValueError(
                f"Expected two or more counts, among which {self.likelihood_name} shares out their total, got one."
            )
        if not _fits_layout(self.layout, self.shape):
            raise ValueError(
                f"Expected a layout 'grid', 'path' of a vector of pairs, or 'spectrogram' of frames by bands, "
                f"got {self.layout!r} of shape {self.shape}."
            )
        named = self.num_categories or self.size
        if self.labels is not None and len(self.labels) != named:
            raise ValueError(f"Expected {named} labels, one for each category or entry, got {self.labels}.")
        _check_standardised(self)
        if self.num_categories is not None and self.num_categories < 2:
            raise ValueError(f"Expected at least 2 categories, got {self.num_categories}.")
        if self.support is not None and not -math.inf < self.support[0] < self.support[1] < math.inf:
            raise ValueError(f"Expected a support (low, high) with low < high, both finite, got {self.support}.")

    @property
    def law(self) -> dict[str, Any]:
        """What a model of the modality depends on: not how people look at it, nor the total of what is generated."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _BESIDE_THE_LAW}

    @property
    def likelihood_name(self) -> str:
        """The likelihood's name, for people: that of its file."""
        return self.likelihood if isinstance(self.likelihood, str) else type(self.likelihood).__module__.rsplit(".", 1)[-1]

    @property
    def values(self) -> Values:
        """What the likelihood is a distribution of."""
        return LIKELIHOODS[self.likelihood] if isinstance(self.likelihood, str) else self.likelihood.values

    @property
    def given_total(self) -> bool:
        """Whether the likelihood is of counts given their total."""
        return self.likelihood == "negative_binomial" or getattr(self.likelihood, "given_total", False)

    @property
    def may_be_standardised(self) -> bool:
        """Whether a reader may shift and scale the values."""
        return self.values == "reals" and self.support is None and getattr(self.likelihood, "standardised", True)

    @property
    def likelihood_config(self) -> configs.Component:
        """The likelihood's config, `likelihoods.base.Config`: where it has a name, that of the file of this name. It imports JAX."""
        if isinstance(self.likelihood, str):
            return importlib.import_module(f"jnf_jax.likelihoods.{self.likelihood}").Config()
        return self.likelihood

    @property
    def size(self) -> int:
        """Number of values in one example."""
        return math.prod(self.shape)

    @property
    def parameter_shape(self) -> tuple[int, ...]:
        """Shape of what a decoder returns for one example; the likelihood's config says it."""
        return self.likelihood_config.parameter_shape(self)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example as an encoder sees it: categories are one-hot."""
        return self.shape if self.num_categories is None else (*self.shape, self.num_categories)


def _likelihood(given: Any) -> Likelihood | configs.Component:
    """Returns the name of a likelihood that has one, and the config of another.

    Raises:
      ValueError: if it is neither a known name nor the config of a likelihood.
    """
    if isinstance(given, str) and given in LIKELIHOODS:
        return given
    if not isinstance(given, configs.Component) or getattr(given, "values", None) not in VALUES:
        raise ValueError(f"Expected a likelihood of {tuple(LIKELIHOODS)}, or the config of a likelihood, got {given!r}.")
    package, _, name = type(given).__module__.rpartition(".")
    return name if package == "jnf_jax.likelihoods" and name in LIKELIHOODS else given


def _check_standardised(spec: ModalitySpec) -> None:
    given = [values for values in (spec.mean, spec.deviation) if values is not None]
    if any(not isinstance(values, tuple) for values in given):
        raise ValueError(f"Expected a mean and a deviation for each entry, got {spec.mean} and {spec.deviation}.")
    if any(not isinstance(value, (int, float)) for values in given for value in values):
        raise ValueError(f"Expected numbers as mean and deviation, got {spec.mean} and {spec.deviation}.")
    if given and not spec.may_be_standardised:
        raise ValueError(
            f"Expected a mean for unbounded real values alone, got one for {spec.likelihood_name} with support {spec.support}."
        )
    if given and (len(given) < 2 or any(len(values) != spec.size for values in given)):
        sizes = [None if values is None else len(values) for values in (spec.mean, spec.deviation)]
        raise ValueError(
            f"Expected a mean and a deviation of {spec.size} entries each, or neither, got {sizes[0]} and {sizes[1]}."
        )
    if given and not (all(map(math.isfinite, spec.mean)) and all(0 < value < math.inf for value in spec.deviation)):
        raise ValueError("Expected finite means and positive, finite deviations, got others.")


def _plain(value: Any) -> Any:
    """Returns one of numpy's numbers as Python's own, and all else as it is."""
    if isinstance(value, (bool, int, float)):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value) if isinstance(value, numbers.Real) else value


def _fits_layout(layout: str, shape: tuple[int, ...]) -> bool:
    match layout:
        case "grid":
            return True
        case "path":
            return len(shape) == 1 and shape[0] % 2 == 0
        case "spectrogram":
            return len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)
    return False


Specs = Mapping[str, ModalitySpec]

MASKS = "observed"  # entry of a batch beside the modalities' own: modality -> `[B]` bool, whether an example has it

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*")
_TAKEN = ("all", "label", "labels", "observed", "prior", "type")  # mean something in tables and files


def kinds(specs: Specs, settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns modality -> the first one of an equal law and equal settings: a program compiled for that one serves both."""
    law = lambda name: (specs[name].law, specs[name].library, settings[name])
    alike = lambda first, second: law(first) == law(second)
    return {name: next(other for other in specs if other == name or alike(other, name)) for name in specs}


def check_names(names: Iterable[str]) -> None:
    """Checks the names of modalities, which stand in tables, in lists like `m0+m2` and `m0,m2`, and in names of files.

    Raises:
      ValueError: if one has other characters than letters, digits and `_. -`, or has a meaning of its own.
    """
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _TAKEN:
            raise ValueError(
                f"Expected names of modalities of letters, digits, and '_', '.', '-', and none of {_TAKEN}, got {name!r}."
            )
