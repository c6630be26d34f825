"""Arrays to pictures: grids of images, with names at the side."""

import math
from collections.abc import Sequence

import matplotlib
import matplotlib.figure
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import PIL.ImageDraw

from jnf_jax import specs as specs_lib

matplotlib.use("Agg")


def as_image(spec: specs_lib.ModalitySpec, x: np.ndarray) -> np.ndarray:
    """Returns one example as an image `[H, W, 3]` in [0, 1]; a vector becomes rows of grey values, nearly square, or a curve.

    Args:
      spec: the modality.
      x: `[*shape]`, canonical.
    """
    x = np.asarray(x, float)
    if spec.likelihood == "categorical":
        x = x / (spec.num_categories - 1)
    if spec.likelihood == "negative_binomial":  # white: ten times what each would be if all had the same mean
        x = np.log1p(x) / np.log1p(10 * spec.library / spec.size)
    low, high = spec.support or ((0.0, 1.0) if spec.likelihood not in ("gaussian", "laplace") else (-3.0, 3.0))
    x = np.clip((x - low) / (high - low), 0, 1)
    if spec.layout == "path":
        x = _path(x.reshape(-1, 2))
    if x.ndim == 1:
        width = math.ceil(math.sqrt(len(x)))
        x = np.pad(x, (0, -len(x) % width), constant_values=0.0).reshape(-1, width)
    if x.ndim == 2:
        x = x[..., None]
    if x.ndim != 3 or x.shape[-1] not in (1, 3):
        x = x.reshape(x.shape[0], -1, 1)
    return np.broadcast_to(x, (*x.shape[:2], 3))


def _path(points: np.ndarray, size: int = 28, oversampling: int = 4) -> np.ndarray:
    """Returns a curve `[P, 2]` in the unit square as white strokes on black `[size, size]`, y upwards."""
    side = size * oversampling
    canvas = PIL.Image.new("L", (side, side))
    inner = 0.1 * side + 0.8 * side * np.stack([points[:, 0], 1 - points[:, 1]], axis=1)
    PIL.ImageDraw.Draw(canvas).line([tuple(point) for point in inner], fill=255, width=2 * oversampling, joint="curve")
    return np.asarray(canvas.resize((size, size), PIL.Image.Resampling.BOX)) / 255.0


def grid(
    blocks: Sequence[tuple[str, list[list[np.ndarray]]]], *, title: str, divider: int | None = None
) -> matplotlib.figure.Figure:
    """Returns a figure of named blocks of rows of images; a line stands after column `divider`."""
    rows = [(name if i == 0 else "", row) for name, block in blocks for i, row in enumerate(block)]
    columns = max(len(row) for _, row in rows)
    margin = max(0.9, 0.085 * max(len(name) for name, _ in rows))  # inches, for the names
    figure, axes = plt.subplots(len(rows), columns, figsize=(0.55 * columns + margin, 0.55 * len(rows) + 0.5), squeeze=False)
    for (name, row), line in zip(rows, axes, strict=True):
        for axis in line:
            axis.axis("off")
        for axis, image in zip(line, row, strict=False):
            if image is not None:
                axis.imshow(image, interpolation="nearest")
        if name:
            line[0].text(-0.25, 0.5, name, ha="right", va="center", transform=line[0].transAxes, fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.subplots_adjust(left=margin / (0.55 * columns + margin), right=0.995, bottom=0.005, wspace=0.05, hspace=0.05)
    figure.subplots_adjust(top=1 - 0.42 / (0.55 * len(rows) + 0.5))
    if divider is not None:
        left, right = axes[0][divider - 1].get_position().x1, axes[0][divider].get_position().x0
        x = (left + right) / 2
        figure.add_artist(plt.Line2D([x, x], [0, axes[0][0].get_position().y1], color="black", linewidth=1.5))
    return figure
