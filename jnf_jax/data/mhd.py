"""MHD: an image, a sound and a pen trajectory of one digit (Vasco et al., 2021), from its authors' tensors.

    image   28x28x1    audio   32x128x1 mel    trajectory   200       float32, Gaussian(scale) on [0, 1]

The authors publish `mhd_train.pt` and `mhd_test.pt`, which only PyTorch can read. `python -m experiments.convert_mhd` turns them once into .npz files of plain arrays, to be laid under
`$JNF_DATA_DIR/mhd/`. A tenth of the 50,000 training examples is kept for validation, by class. The label is no modality.
"""

import dataclasses
import pathlib
import zipfile

import numpy as np

from jnf_jax import configs, specs
from jnf_jax.data import files, pairing, prepared, source

_SHAPES = {"image": (28, 28, 1), "audio": (32, 128, 1), "trajectory": (200,)}
_HINT = "Make it from the authors' tensors by `python -m experiments.convert_mhd`."
_RAW = {part: files.RawFile(name=f"mhd/mhd_{part}.npz", hint=_HINT) for part in ("train", "test")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """MHD.

    Attributes:
      seed: of the held out examples.
      validation_fraction: share of the training examples kept for validation.
      scale: standard deviation of the Gaussian likelihoods, whose values lie in [0, 1].
    """

    seed: int = 0
    validation_fraction: float = 0.1
    scale: float = 1.0


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split.

    Raises:
      ValueError: if the split is unknown or a file holds something else.
      FileNotFoundError: if a file is missing.
    """
    paths = {part: files.find(file) for part, file in _RAW.items()}

    def make(split):
        arrays, labels = read(paths["test" if split == "test" else "train"])
        rows = np.arange(len(labels))
        if split != "test":
            rows = pairing.holdout(config.seed, labels, config.validation_fraction)[split]
        view = lambda x: lambda part: x[rows[part]]
        return prepared.Examples(labels[rows], {name: view(x) for name, x in arrays.items()})

    common = {"likelihood": "gaussian", "scale": config.scale, "support": (0.0, 1.0)}
    layouts = {"trajectory": "path", "audio": "spectrogram"}
    return prepared.load(
        config,
        split,
        specs={
            name: specs.ModalitySpec(shape=shape, layout=layouts.get(name, "grid"), **common) for name, shape in _SHAPES.items()
        },
        dtypes=dict.fromkeys(_SHAPES, np.float32),
        raw=files.sha256(paths.values()),
        make=make,
    )


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns modality -> `[N, *shape]` float32, and the classes `[N]`.

    In the file the image is `[N, 1, 28, 28]` and the sound `[N, 4, 32, 32]`: four blocks of 32 bands, each a band by 32 frames.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            image, audio, trajectory, labels = (content[name] for name in ("image", "audio", "trajectory", "label"))
    except (KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"Expected an .npz file of image, audio, trajectory and label at {path}: {error}") from error
    num = len(labels)
    if labels.shape != (num,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"Expected integer labels of shape (N,) in {path}, got {labels.dtype} {labels.shape}.")
    for name, x, size in (("image", image, 784), ("audio", audio, 4096), ("trajectory", trajectory, 200)):
        if x.size != num * size:
            raise ValueError(f"Expected {size} values of {name} for each of {num} labels in {path}, got shape {x.shape}.")
        if x.min() < 0 or x.max() > 1:
            raise ValueError(f"Expected values of {name} in [0, 1] in {path}, got {x.min()} to {x.max()}.")
    arrays = {
        "image": image.reshape(num, *_SHAPES["image"]),
        "audio": audio.reshape(num, 128, 32).transpose(0, 2, 1)[..., None],
        "trajectory": trajectory.reshape(num, 200),
    }
    return {name: x.astype(np.float32) for name, x in arrays.items()}, labels.reshape(-1).astype(np.int64)
