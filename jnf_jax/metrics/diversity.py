"""Diversity of what is generated from one observation, so that coherence is not bought with collapse.

    mean distance between images generated from one observation / mean distance between real images of its class

Both are root mean squared differences over pixels; 1 means as varied as real images of the class, 0 that all draws look the same. A model that
decodes means cannot show the pixels' own noise and stays below 1 for cluttered modalities.
"""

import numpy as np


def pairwise_distance(x: np.ndarray) -> np.ndarray:
    """Returns the mean distance between different rows of each set.

    Args:
      x: `[.., S, F]`: sets of S flattened images.

    Returns:
      `[..]`.

    Raises:
      ValueError: if there are fewer than two images in a set.
    """
    num = x.shape[-2]
    if num < 2:
        raise ValueError(f"Expected at least two images to compare, got {num}.")
    x = np.asarray(x, np.float64)
    gram = x @ np.swapaxes(x, -1, -2)
    norms = np.einsum("...ii->...i", gram)
    squared = np.maximum(norms[..., :, None] + norms[..., None, :] - 2 * gram, 0)
    squared[..., np.arange(num), np.arange(num)] = 0
    return np.sqrt(squared / x.shape[-1]).sum((-1, -2)) / (num * (num - 1))


def diversity(
    generated: np.ndarray, classes: np.ndarray, real: np.ndarray, real_classes: np.ndarray, *, most: int = 200
) -> float:
    """Returns the ratio, averaged over the observations whose class has two real images and more that differ; NaN where none has.

    Args:
      generated: `[N, S, *shape]`: S images from each observation.
      classes: `[N]` the observations' classes.
      real: `[R, *shape]` real images.
      real_classes: `[R]` their classes.
      most: real images per class that are compared.
    """
    real = real.reshape(len(real), -1)
    known = [c for c in np.unique(classes) if (real_classes == c).sum() > 1]
    if not known:
        return float("nan")
    generated, classes = (x[np.isin(classes, known)] for x in (generated, classes))
    scale = {c: pairwise_distance(real[real_classes == c][:most]) for c in known}
    varied = np.asarray([scale[c] > 0 for c in classes])
    if not varied.any():
        return float("nan")
    generated, classes = generated[varied], classes[varied]
    distances = pairwise_distance(generated.reshape(*generated.shape[:2], -1))
    return float(np.mean(distances / np.asarray([scale[c] for c in classes])))
