"""Polydigits: four views of a handwritten digit, made in the manner of PolyMNIST from scikit-learn's own data.

Each example holds four different instances of one digit (`sklearn.datasets.load_digits`, 1,797 real digits of 8x8). Three of them
lie over a random crop of a part of a photograph (`load_sample_images`), the parts disjoint, with the colours inverted on
the digit; the fourth is plain strokes. Nothing is downloaded.

    m0 lake   m1 petals   m2 foliage   m3 strokes       28x28x3 uint8, Laplace(scale) on [0, 1]

Up to sixteen views can be had: m4 to m7 are the same in other colours, and so on. Every view has a digit and a crop of its own.

The 1,797 digits are split by instance, class by class: no digit of the validation or test part occurs in training (the
writers and photographs do: scikit-learn's copy names no writers). Training digits are jittered by small affine
maps, since there are few of them; validation and test digits are not.
"""

import dataclasses
import functools

import numpy as np
import scipy.ndimage
import sklearn.datasets

from jnf_jax import configs, specs
from jnf_jax.data import source

_SIZE = 28
_PARTS = {  # modality -> (photograph, rows, columns)
    "m0": ("china.jpg", slice(170, 310), slice(345, 560)),
    "m1": ("flower.jpg", slice(95, 345), slice(185, 435)),
    "m2": ("china.jpg", slice(310, 427), slice(385, 640)),
}
_VIEWS = (*_PARTS, "m3")
_CHANNELS = ((0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))  # of photographs, for each four views
_STROKES = ((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1))  # colours of plain strokes
_MOST_MODALITIES = len(_VIEWS) * len(_CHANNELS)
_NUM_CLASSES = 10
_UPSAMPLING = 12  # the 8x8 digits are smoothed to 120x120 (with a margin) before they are mapped onto the image
_CHUNK = 2_000  # examples drawn at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """Polydigits.

    Attributes:
      seed: of the split, the pairing, the crops and the jitter.
      num_modalities: views of a digit, 2 to 16.
      num_train: training examples, each a new pairing of jittered digits.
      num_validation: validation examples.
      num_test: test examples.
      scale: b of the Laplace likelihood, in units of an intensity in [0, 1].
      rotation: largest rotation of a training digit, degrees.
      zoom: largest relative change of size of a training digit.
      shift: largest shift of a training digit, pixels.
    """

    seed: int = 0
    num_modalities: int = 4
    num_train: int = 20_000
    num_validation: int = 1_000
    num_test: int = 2_000
    scale: float = 0.75
    rotation: float = 12.0
    zoom: float = 0.12
    shift: float = 1.5

    def __post_init__(self):
        super().__post_init__()
        if not 2 <= self.num_modalities <= _MOST_MODALITIES:
            raise ValueError(f"Expected 2 to {_MOST_MODALITIES} modalities, got {self.num_modalities}.")


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split; the same for the same config on x86 processors with AVX2.

    On other processors numpy returns the smallest numbers of a row in another order, and some views show other digits of the same class.

    Raises:
      ValueError: if the split is unknown or its number of examples is not positive.
    """
    num = source.num_examples(config, split)
    rng = np.random.default_rng([config.seed, source.SPLITS.index(split)])
    digits, digit_labels = _digits()
    pool = instances(config.seed)[split]
    labels = rng.permutation(np.arange(num) % _NUM_CLASSES)
    names = [f"m{j}" for j in range(config.num_modalities)]
    chosen = _pair(rng, pool, digit_labels, labels, len(names))
    arrays = {name: np.empty((num, _SIZE, _SIZE, 3), np.uint8) for name in names}
    for j, name in enumerate(names):
        for start in range(0, num, _CHUNK):
            rows = slice(start, min(start + _CHUNK, num))
            count = rows.stop - rows.start
            maps = _jitter(rng, config, count) if split == "train" else _identity(count)
            arrays[name][rows] = _compose(rng, j, _draw(digits, chosen[rows, j], maps))
    spec = specs.ModalitySpec(shape=(_SIZE, _SIZE, 3), likelihood="laplace", scale=config.scale, support=(0.0, 1.0))
    return source.Source(specs=dict.fromkeys(names, spec), arrays=arrays, labels=labels.astype(np.int32))


def instances(seed: int) -> dict[str, np.ndarray]:
    """Returns split -> indices into scikit-learn's 1,797 digits; 70% train, 10% validation, 20% test of each class."""
    rng = np.random.default_rng([seed, len(source.SPLITS)])
    _, labels = _digits()
    parts: dict[str, list[np.ndarray]] = {name: [] for name in source.SPLITS}
    for label in range(_NUM_CLASSES):
        indices = rng.permutation(np.flatnonzero(labels == label))
        first, second = round(0.7 * len(indices)), round(0.8 * len(indices))
        for name, part in zip(source.SPLITS, np.split(indices, [first, second]), strict=True):
            parts[name].append(part)
    return {name: np.concatenate(part) for name, part in parts.items()}


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = np.pad(images.reshape(-1, 8, 8) / 16.0, ((0, 0), (1, 1), (1, 1)))
    # cubic spline interpolation is linear in the image and separable: one matrix for the rows, the same for the columns
    spline = scipy.ndimage.zoom(np.eye(10), (_UPSAMPLING, 1), order=3, grid_mode=True, mode="grid-constant")
    smooth = spline @ images @ spline.T
    return smooth.astype(np.float32), labels


@functools.cache
def _photographs() -> dict[str, np.ndarray]:
    bunch = sklearn.datasets.load_sample_images()
    names = [name.replace("\\", "/").rsplit("/", 1)[-1] for name in bunch.filenames]
    return dict(zip(names, bunch.images, strict=True))


def _pair(
    rng: np.random.Generator, pool: np.ndarray, digit_labels: np.ndarray, labels: np.ndarray, num_modalities: int
) -> np.ndarray:
    """Returns `[N, M]` indices of different digits of each example's class."""
    chosen = np.empty((len(labels), num_modalities), int)
    for label in range(_NUM_CLASSES):
        candidates = pool[digit_labels[pool] == label]
        rows = np.flatnonzero(labels == label)
        order = rng.random((len(rows), len(candidates))).argpartition(num_modalities, axis=1)[:, :num_modalities]
        chosen[rows] = candidates[rng.permuted(order, axis=1)]
    return chosen


def _identity(num: int) -> np.ndarray:
    return np.broadcast_to(np.float32([[1, 0, 0], [0, 1, 0]]), (num, 2, 3))


def _jitter(rng: np.random.Generator, config: Config, num: int) -> np.ndarray:
    """Returns `[N, 2, 3]` affine maps from centred pixels of the image to centred pixels of the digit."""
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation, num))
    zoom = 1 / (1 + rng.uniform(-config.zoom, config.zoom, (num, 2)))
    shift = rng.uniform(-config.shift, config.shift, (num, 2))
    linear = np.stack(
        [
            np.stack([np.cos(angle) * zoom[:, 0], -np.sin(angle) * zoom[:, 0]], -1),
            np.stack([np.sin(angle) * zoom[:, 1], np.cos(angle) * zoom[:, 1]], -1),
        ],
        axis=1,
    )
    return np.concatenate([linear, shift[:, :, None]], axis=2).astype(np.float32)


def _draw(digits: np.ndarray, chosen: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Returns the coverage in [0, 1] of each digit, `[N, 28, 28]`: the nearest point of the smoothed digit, then steepened."""
    grid = np.arange(_SIZE, dtype=np.float32) - (_SIZE - 1) / 2
    pixels = np.stack([*np.meshgrid(grid, grid, indexing="ij"), np.ones((_SIZE, _SIZE), np.float32)]).reshape(3, -1)
    side = digits.shape[1]
    ratio = np.float32(side / (_SIZE + 2.0))  # one pixel of margin on each side
    position = np.rint(maps @ (pixels * ratio) + np.float32((side - 1) / 2)).astype(np.int32)
    np.clip(position, 0, side - 1, out=position)
    rows = (chosen * side)[:, None] + position[:, 0]
    value = digits.reshape(-1)[rows * side + position[:, 1]]
    return np.clip((value - 0.25) / 0.35, 0, 1).reshape(-1, _SIZE, _SIZE)


def _compose(rng: np.random.Generator, number: int, strokes: np.ndarray) -> np.ndarray:
    """Returns `[N, 28, 28, 3]` uint8: the strokes inverting the colours of a random crop, or one colour on black."""
    colours, view = divmod(number, len(_VIEWS))
    if (name := _VIEWS[view]) not in _PARTS:
        return np.rint(255 * strokes).astype(np.uint8)[..., None] * np.uint8(_STROKES[colours])
    photograph, rows, columns = _PARTS[name]
    part = _photographs()[photograph][rows, columns]
    windows = np.lib.stride_tricks.sliding_window_view(part, (_SIZE, _SIZE), axis=(0, 1))
    top = rng.integers(windows.shape[0], size=len(strokes))
    left = rng.integers(windows.shape[1], size=len(strokes))
    crops = windows[top, left].transpose(0, 2, 3, 1)[..., _CHANNELS[colours]].astype(np.float32)
    return np.rint(crops + strokes[..., None] * (255 - 2 * crops)).astype(np.uint8)
