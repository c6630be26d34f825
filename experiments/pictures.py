"""Examples of any modality as square tiles of one size, and grids of tiles with names at the side.

    pictures and arrays      resized to the tile         short vectors (16 entries)   bars
    spectrograms             false colours               longer vectors               a curve
    paths                    strokes                     categories                   words

Bars, curves and words show a draw in blue, the test example's own value in orange, and the spread of all draws in grey.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal

import matplotlib
import matplotlib.figure
import matplotlib.font_manager
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from jnf_jax import specs as specs_lib
from jnf_jax import units

matplotlib.use("Agg")

Kind = Literal["picture", "spectrogram", "path", "bars", "curve", "words"]
Limits = tuple[float, float]

SIZE = 112  # pixels of a tile: a multiple of 7, 8, 14, 16 and 28
LONGEST_BARS = 16
LONGEST_WORDS = 4
_NAMED_ENTRIES = 4  # of a vector, in a caption

_BACKGROUND, _INK, _SPREAD, _DRAW, _TRUTH = (245, 245, 248), (60, 60, 70), (178, 184, 196), (37, 99, 190), (224, 112, 0)
_OVERSAMPLING = 3  # lines are drawn larger and averaged
_MARGIN = 0.08  # of a tile, around bars and curves
_WIDEST = 2.0  # ratio of sides up to which a picture keeps its form; wider ones fill the tile


def kind(spec: specs_lib.ModalitySpec) -> Kind:
    """Returns how a modality is shown."""
    if spec.layout != "grid":
        return spec.layout
    if spec.num_categories is not None and spec.size <= LONGEST_WORDS:
        return "words"
    if max(spec.shape) < spec.size:  # more than one axis that is longer than 1
        return "picture"
    return "bars" if spec.size <= LONGEST_BARS else "curve"


def limits(spec: specs_lib.ModalitySpec, examples: np.ndarray) -> Limits:
    """Returns the range of values that a modality's tiles share: of its likelihood where bounded, else of the examples.

    Args:
      spec: the modality.
      examples: `[N, *shape]`, canonical.
    """
    if spec.support is not None:
        return spec.support
    if spec.values == "binary":
        return 0.0, 1.0
    if spec.num_categories is not None:
        return 0.0, float(spec.num_categories - 1)
    finite = np.asarray(examples, float)[np.isfinite(examples)]
    low, high = np.quantile(finite, [0.005, 0.995]) if finite.size else (0.0, 0.0)
    return (float(low), float(high)) if low < high else (float(low) - 1.0, float(low) + 1.0)


def tile(
    spec: specs_lib.ModalitySpec,
    x: np.ndarray,
    *,
    limits: Limits,
    truth: np.ndarray | None = None,
    draws: np.ndarray | None = None,
    size: int = SIZE,
) -> np.ndarray:
    """Returns one example as an image `[size, size, 3]` in [0, 1].

    Args:
      spec: the modality.
      x: `[*shape]`, canonical.
      limits: the values at the two ends of the scale, from `limits`.
      truth: `[*shape]`, the value beside which `x` is shown; pictures do not show it.
      draws: `[S, *shape]`, of which the spread is shown; pictures do not show it.
      size: pixels of a side.
    """
    match kind(spec):
        case "words":
            return _words(spec, x, truth, draws, size)
        case "bars" | "curve" as form:
            flat = lambda values: None if values is None else _unit(values, limits).reshape(-1, spec.size)
            draw = _bars if form == "bars" else _curve
            return draw(flat(x)[0], None if truth is None else flat(truth)[0], flat(draws), _unit(0.0, limits), size)
        case "path":
            return _path(_unit(x, limits).reshape(-1, 2), size)
        case "spectrogram":
            bands = _unit(x, limits).reshape(spec.shape[:2]).T[::-1]
            return _resized(matplotlib.colormaps["magma"](bands)[..., :3], size)
    return _resized(_channels(_unit(x, limits).reshape([n for n in spec.shape if n > 1])), size)


def caption(name: str, spec: specs_lib.ModalitySpec, limits: Limits) -> str:
    """Returns a modality's name; that of a vector with the range of its tiles, its unit and its entries' names.

    Standardised entries have a range each, in the units of the file, where they are few.
    """
    if kind(spec) not in ("bars", "curve"):
        return name if spec.unit is None else _plain(f"{name} [{spec.unit}]")
    few = spec.size <= _NAMED_ENTRIES
    short = lambda value: format(float(f"{value:.3g}"), ",g")
    between = lambda low, high, unit: f"{short(low)} to {short(high)} {unit or ''}".rstrip()
    if spec.mean is not None and few:
        ends = [units.original(spec, np.full(spec.shape, end)).reshape(-1) for end in limits]
        ranges = [between(low, high, spec.unit) for low, high in zip(*ends, strict=True)]
        labels = spec.labels or ("",) * spec.size
        return _plain("\n".join([name, *(f"{label} {r}".lstrip() for label, r in zip(labels, ranges, strict=True))]))
    lines = [name, between(*limits, "standard deviations" if spec.mean is not None else spec.unit)]
    return _plain("\n".join([*lines, ", ".join(spec.labels)] if spec.labels is not None and few else lines))


def _plain(text: str) -> str:
    """Returns a text in which no dollar begins a formula."""
    return text.replace("$", r"\$")


def mosaic(rows: Sequence[Sequence[np.ndarray | None]], *, gap: int = 4) -> np.ndarray:
    """Returns tiles in rows and columns as one image on white; None stays white."""
    size = next(len(image) for row in rows for image in row if image is not None)
    columns = max(map(len, rows))
    canvas = np.ones((len(rows) * (size + gap) - gap, columns * (size + gap) - gap, 3), np.float32)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            if image is not None:
                canvas[r * (size + gap) :, c * (size + gap) :][:size, :size] = image
    return canvas


def grid(
    blocks: Sequence[tuple[str, Sequence[tuple[str, Sequence[np.ndarray | None]]]]],
    *,
    title: str,
    divider: int | None = None,
    headings: Sequence[str] = (),
) -> matplotlib.figure.Figure:
    """Returns a figure of named blocks of named rows of tiles.

    Args:
      blocks: (name, rows), and a row is (name, tiles).
      title: above all.
      divider: a line stands before that column.
      headings: above the columns.
    """
    inch, band, top = 0.72, 0.24 if any(name for name, _ in blocks) else 0.12, 0.75 if headings else 0.42
    columns = max(len(row) for _, rows in blocks for _, row in rows)
    margin = max(0.5, 0.15 + 0.075 * max(len(line) for _, rows in blocks for name, _ in rows for line in name.split("\n")))
    width = max(margin + inch * columns + 0.1, 0.15 + 0.075 * len(title))
    height = top + sum(band + inch * len(rows) for _, rows in blocks) + 0.08
    figure = plt.figure(figsize=(width, height))
    figure.text(0.08 / width, 1 - 0.1 / height, title, fontsize=9, va="top")
    for c, heading in enumerate(headings):
        figure.text(
            (margin + inch * (c + 0.5)) / width, 1 - (top - 0.06) / height, heading, fontsize=7, ha="center", va="bottom"
        )
    y = top
    for name, rows in blocks:
        figure.text(0.08 / width, 1 - (y + 0.04) / height, name, fontsize=8, weight="bold", va="top")
        y += band
        for label, row in rows:
            centre = 1 - (y + inch / 2) / height
            figure.text((margin - 0.08) / width, centre, label, fontsize=8, ha="right", va="center", linespacing=1.1)
            padded = [*row, *[None] * (columns - len(row))]
            axis = figure.add_axes((margin / width, 1 - (y + inch) / height, inch * columns / width, 0.95 * inch / height))
            axis.imshow(mosaic([padded]), aspect="auto", interpolation="antialiased")
            axis.axis("off")
            y += inch
    if divider is not None:
        x = (margin + inch * divider - 0.012 * inch) / width
        figure.add_artist(plt.Line2D([x, x], [0.05 / height, 1 - (top - 0.04) / height], color="black", linewidth=1.2))
    return figure


def framed(image: np.ndarray, *, width: int = 5) -> np.ndarray:
    """Returns a tile with an orange frame: an observed one."""
    image = np.array(image)
    for edge in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
        image[edge] = np.asarray(_TRUTH) / 255
    return image


def _unit(x, limits: Limits) -> np.ndarray:
    low, high = limits
    return np.clip((np.asarray(x, float) - low) / (high - low), 0, 1)


def _channels(x: np.ndarray) -> np.ndarray:
    """Returns an array as `[H, W, 3]`: grey where it has two axes, else its further axes in columns beside each other."""
    if x.ndim == 3 and x.shape[-1] == 3:
        return x
    x = (np.moveaxis(x, -1, 1) if x.ndim == 3 else x).reshape(x.shape[0], -1, 1)
    return np.broadcast_to(x, (*x.shape[:2], 3))


def _resized(x: np.ndarray, size: int) -> np.ndarray:
    """Returns an image `[H, W, 3]` in the middle of a tile; pixels stay sharp where they are enlarged."""
    height, width = x.shape[:2]
    if max(height, width) > _WIDEST * min(height, width):
        shape = (size, size)
    else:
        shape = tuple(max(1, round(size * n / max(height, width))) for n in (height, width))
    image = PIL.Image.fromarray(np.round(255 * x).astype(np.uint8))
    for axis, n in enumerate(shape):  # one axis at a time: one may grow and the other shrink
        method = PIL.Image.Resampling.NEAREST if n >= x.shape[axis] else PIL.Image.Resampling.BOX
        image = image.resize((image.width, n) if axis == 0 else (n, image.height), method)
    canvas = np.broadcast_to(np.asarray(_BACKGROUND) / 255, (size, size, 3)).copy()
    top, left = (size - shape[0]) // 2, (size - shape[1]) // 2
    canvas[top : top + shape[0], left : left + shape[1]] = np.asarray(image) / 255
    return canvas


class _Canvas:
    """A tile on which lines and rectangles are drawn in the unit square, y upwards."""

    def __init__(self, size: int, colour: tuple[int, int, int] = _BACKGROUND):
        self.size, self.side = size, size * _OVERSAMPLING
        self.image = PIL.Image.new("RGB", (self.side, self.side), colour)
        self.draw = PIL.ImageDraw.Draw(self.image)

    def place(self, x, y, margin: float = _MARGIN) -> list[tuple[float, float]]:
        """Returns points of the unit square in pixels."""
        inner = lambda t: self.side * (margin + (1 - 2 * margin) * np.atleast_1d(t))
        return list(zip(inner(x).tolist(), inner(1 - np.atleast_1d(y)).tolist(), strict=True))

    def line(self, x, y, colour, width: float, margin: float = _MARGIN) -> None:
        """Draws a line; `width` in hundredths of the tile."""
        self.draw.line(self.place(x, y, margin), fill=colour, width=max(1, round(width * self.side / 100)), joint="curve")

    def array(self) -> np.ndarray:
        """Returns the tile."""
        return np.asarray(self.image.resize((self.size, self.size), PIL.Image.Resampling.BOX)) / 255


def _bars(x, truth, draws, zero, size: int) -> np.ndarray:
    """Returns a bar from zero to each value, a whisker from the 5th to the 95th percentile of draws, and a mark at the truth."""
    canvas = _Canvas(size)
    canvas.line([0, 1], [zero, zero], _INK, 0.7)
    for i, value in enumerate(x):
        left, right = (i + 0.12) / len(x), (i + 0.88) / len(x)
        low, high = sorted((value, float(zero)))
        (x0, y1), (x1, y0) = canvas.place([left, right], [low, high])
        canvas.draw.rectangle((x0, y0, x1, max(y0, y1)), fill=_DRAW)
        if draws is not None:
            middle = (left + right) / 2
            canvas.line([middle, middle], np.quantile(draws[:, i], [0.05, 0.95]), _SPREAD, 4.5)
            canvas.line([middle, middle], np.quantile(draws[:, i], [0.05, 0.95]), _INK, 1.5)
        if truth is not None:
            canvas.line([i / len(x), (i + 1) / len(x)], [truth[i], truth[i]], _TRUTH, 3.0)
    return canvas.array()


def _curve(x, truth, draws, zero, size: int) -> np.ndarray:
    """Returns a line through the values, a band from the 5th to the 95th percentile of draws, and a line through the truth."""
    canvas = _Canvas(size)
    t = np.linspace(0, 1, len(x))
    canvas.line([0, 1], [zero, zero], (205, 205, 212), 0.7)
    if draws is not None:
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        canvas.draw.polygon(canvas.place([*t, *t[::-1]], [*low, *high[::-1]]), fill=_SPREAD)
    if truth is not None:
        canvas.line(t, truth, _TRUTH, 1.3)
    canvas.line(t, x, _DRAW, 1.8)
    return canvas.array()


def _path(points: np.ndarray, size: int) -> np.ndarray:
    """Returns a curve `[P, 2]` in the unit square as white strokes on black."""
    canvas = _Canvas(size, (0, 0, 0))
    canvas.line(points[:, 0], points[:, 1], (255, 255, 255), 6.0, margin=0.1)
    return canvas.array()


def _words(spec: specs_lib.ModalitySpec, x, truth, draws, size: int) -> np.ndarray:
    """Returns the categories' names, the share of draws that have them all, and the truth where it is another."""
    name = lambda value: spec.labels[int(value)] if spec.labels is not None else str(int(value))
    flat = lambda values: np.asarray(values).reshape(-1, spec.size)
    lines = [(name(value), _DRAW if truth is not None else _INK, 0.26) for value in flat(x)[0]]
    if draws is not None:
        lines.append((f"{(flat(draws) == flat(x)).all(1).mean():.0%} of draws", _INK, 0.13))
    if truth is not None and (flat(truth) != flat(x)).any():
        lines.append((f"not {', '.join(map(name, flat(truth)[0]))}", _TRUTH, 0.16))
    canvas = _Canvas(size)
    step = canvas.side * min(0.27, 0.9 / len(lines))
    for i, (text, colour, height) in enumerate(lines):
        font = _font(math.floor(min(height * canvas.side, step)))
        longest = 0.92 * canvas.side
        if font.getlength(text) > longest:
            font = _font(max(1, math.floor(font.size * longest / font.getlength(text))))
        y = canvas.side / 2 + (i - (len(lines) - 1) / 2) * step
        canvas.draw.text((canvas.side / 2, y), text, fill=colour, font=font, anchor="mm")
    return canvas.array()


@functools.cache
def _font(size: int) -> PIL.ImageFont.FreeTypeFont:
    return PIL.ImageFont.truetype(matplotlib.font_manager.findfont("DejaVu Sans"), size)
