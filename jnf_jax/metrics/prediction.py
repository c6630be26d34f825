"""How well draws given some modalities predict the values of another one: of reals and counts the share of the variance that their mean
explains, of categories and of 0 and 1 how often the most probable one is right. It needs no labels."""

import numpy as np

from jnf_jax import distributions, types
from jnf_jax import specs as specs_lib

KINDS = ("explained variance", "accuracy")


def kind(spec: specs_lib.ModalitySpec) -> str:
    """Returns which of `KINDS` a modality has."""
    return "accuracy" if spec.values in ("categories", "binary") else "explained variance"


def expected(spec: specs_lib.ModalitySpec, parameters: types.Array) -> types.Array:
    """Returns the mean over draws of what each predicts.

    Args:
      spec: the modality.
      parameters: of its likelihood, `[S, B, *parameter_shape]`, as `decode` returns them.

    Returns:
      Means of reals and counts and probabilities of 1 `[B, *shape]`, probabilities of categories `[B, *shape, K]`.
    """
    if spec.values == "categories":
        return distributions.probabilities(spec, parameters).mean(0)
    return distributions.mean(spec, parameters).mean(0)


def quality(spec: specs_lib.ModalitySpec, predicted: types.Array, x: types.Array) -> float:
    """Returns the explained variance 1 - sum (x - predicted)^2 / sum (x - mean x)^2 over all entries, or the accuracy over all entries.

    Counts are compared on the scale of encoders, log(1 + x). Where the likelihood is given the total, predictions are first scaled to the
    example's own.

    NaN where the examples do not vary.

    Args:
      spec: the modality.
      predicted: `[B, ..]`, from `expected`.
      x: the examples `[B, *shape]`.
    """
    if spec.values == "categories":
        return float((np.asarray(predicted).argmax(-1) == np.asarray(x)).mean())
    if spec.values == "binary":
        return float(((np.asarray(predicted) > 0.5) == np.asarray(x)).mean())
    predicted = np.asarray(predicted, np.float64)
    if spec.given_total:  # the likelihood tells how an example's own total is shared out
        predicted = predicted * np.asarray(x, np.float64).sum(tuple(range(1, np.ndim(x))), keepdims=True) / spec.library
    if spec.values == "counts":
        predicted = np.log1p(predicted)
    x = np.asarray(distributions.network_input(spec, x), np.float64)
    total = ((x - x.mean(0)) ** 2).sum()
    return float(1 - ((x - predicted) ** 2).sum() / total) if total > 0 else float("nan")
