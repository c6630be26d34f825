"""How close a reconstruction comes to its original: mean squared error, and structural similarity for images (Wang et al., 2004)."""

import numpy as np
import skimage.metrics

_WINDOW = 7  # scikit-image's own default


def mean_squared_error(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the mean over an example's values of the squared difference, `[N]`, of `[N, *shape]` each."""
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    return (difference.reshape(len(difference), -1) ** 2).mean(1)


def structural_similarity(first: np.ndarray, second: np.ndarray, *, value_range: float) -> np.ndarray:
    """Returns the SSIM `[N]` of images `[N, H, W, C]` each, the mean over windows of 7x7 and channels.

    Args:
      first: images.
      second: as many images.
      value_range: highest minus lowest possible value.

    Raises:
      ValueError: if they are no images of one shape, or smaller than a window.
    """
    if first.shape != second.shape or first.ndim != 4 or min(first.shape[1:3]) < _WINDOW:
        raise ValueError(
            f"Expected images (N, H, W, C) of at least {_WINDOW}x{_WINDOW}, as many of both, got {first.shape} and {second.shape}."
        )
    compare = skimage.metrics.structural_similarity
    pairs = zip(np.asarray(first, np.float64), np.asarray(second, np.float64), strict=True)
    return np.asarray([compare(a, b, data_range=value_range, channel_axis=-1, win_size=_WINDOW) for a, b in pairs])


def is_image(shape: tuple[int, ...]) -> bool:
    """Returns whether examples of this shape have a structural similarity."""
    return len(shape) == 3 and min(shape[:2]) >= _WINDOW
