"""MHD stand-in: an image, a sound and a pen trajectory of one digit, from three public sets that have nothing to do with each other.

    image        28x28x1   MNIST                            uint8
    audio        32x128x1  Free Spoken Digit Dataset        uint8, log-mel: 32 frames, 128 bands
    trajectory   200       UCI pen digits                   float32, 100 points (x, y) in [0, 1]

Gaussian likelihoods on [0, 1]. Every MNIST digit serves once; recordings and strokes of its class are drawn about equally often. No digit,
recording or pen sample of one part occurs in another: recordings by their official index (0 to 4 test, 5 to 9 validation), strokes by
UCI's two files. The six speakers are on all sides; UCI's test writers are not in training.

A recording is cut or padded to 0.8 s (over 95% of them are shorter), and becomes 32 frames, 25 ms apart, of a 64 ms Hann window at 8 kHz; 128 mel bands from
an FFT of 1,024; decibels below the recording's own maximum, 80 at most. A stroke's 8 points, which UCI spaces evenly along it, are resampled to
100 along its length.
"""

import dataclasses
import pathlib
import zipfile

import librosa
import numpy as np

from jnf_jax import configs, specs
from jnf_jax.data import files, mnist, pairing, polymnist_family, prepared, source

_SAMPLE_RATE = 8_000
_FRAMES, _BANDS, _HOP, _WINDOW, _FFT = 32, 128, 200, 512, 1024
_DECIBELS = 80.0
_POINTS = 100
_RECORDINGS = files.RawFile(
    name="fsdd/fsdd_8k_int16.npz",
    hint="It is made once from the recordings of the Free Spoken Digit Dataset by `python -m experiments.convert_fsdd`.",
)
_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/pendigits/"
_STROKES = {
    "train": files.RawFile(name="pendigits/pendigits.tra", hint=f"It is {_UCI}pendigits.tra."),
    "test": files.RawFile(name="pendigits/pendigits.tes", hint=f"It is {_UCI}pendigits.tes."),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """MHD stand-in.

    Attributes:
      seed: of the held out digits and strokes, and of the pairing.
      validation_fraction: share of the training digits and strokes kept for validation.
      scale: standard deviation of the Gaussian likelihoods, whose values lie in [0, 1].
    """

    seed: int = 0
    validation_fraction: float = 0.1
    scale: float = 1.0


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split; the same for the same config, raw files and versions of the libraries that read them.

    Raises:
      ValueError: if the split is unknown or a raw file holds something else.
      FileNotFoundError: if a raw file is missing.
    """
    paths = {name: files.find(file) for name, file in (("audio", _RECORDINGS), *_STROKES.items())}

    def make(split):
        images, classes = polymnist_family.digits(config.seed, config.validation_fraction, split)
        order = pairing.generator(config.seed, split, "classes").permutation(len(classes))
        images, classes = images[order], classes[order]
        sounds, sound_classes = recordings(paths["audio"], split)
        pens, pen_classes = strokes(paths["test" if split == "test" else "train"])
        if split != "test":
            rows = pairing.holdout(config.seed, pen_classes, config.validation_fraction)[split]
            pens, pen_classes = pens[rows], pen_classes[rows]
        sound = pairing.matched(pairing.generator(config.seed, split, "audio"), classes, sound_classes)
        pen = pairing.matched(pairing.generator(config.seed, split, "trajectory"), classes, pen_classes)
        views = {
            "image": lambda rows: images[rows][..., None],
            "audio": lambda rows: sounds[sound[rows]][..., None],
            "trajectory": lambda rows: pens[pen[rows]],
        }
        return prepared.Examples(classes, views)

    common = {"likelihood": "gaussian", "scale": config.scale, "support": (0.0, 1.0)}
    return prepared.load(
        config,
        split,
        specs={
            "image": specs.ModalitySpec(shape=(28, 28, 1), **common),
            "audio": specs.ModalitySpec(shape=(_FRAMES, _BANDS, 1), layout="spectrogram", **common),
            "trajectory": specs.ModalitySpec(shape=(2 * _POINTS,), layout="path", **common),
        },
        dtypes={"image": np.uint8, "audio": np.uint8, "trajectory": np.float32},
        raw=mnist.identity() | files.sha256(paths.values()),
        make=make,
    )


def recordings(path: pathlib.Path, split: source.Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns a part's recordings as spectrograms `[R, 32, 128]` uint8, and their classes `[R]`."""
    try:
        with np.load(path, allow_pickle=False) as content:
            audio, offsets, labels, index = (content[name] for name in ("audio", "offsets", "label", "index"))
    except (KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"Expected an .npz file of audio, offsets, label and index at {path}: {error}") from error
    if (
        len(offsets) != len(labels) + 1
        or len(index) != len(labels)
        or offsets[-1] != len(audio)
        or (np.diff(offsets) < 1).any()
    ):
        raise ValueError(
            f"Expected rising offsets and an index of {len(labels)} recordings that end at {len(audio)} in {path}, got {offsets}."
        )
    part = {"test": index < 5, "validation": (index >= 5) & (index < 10), "train": index >= 10}[split]
    rows = np.flatnonzero(part)
    spectrograms = [spectrogram(audio[offsets[i] : offsets[i + 1]]) for i in rows]
    return np.stack(spectrograms), labels[rows].astype(np.int64)


def spectrogram(audio: np.ndarray) -> np.ndarray:
    """Returns the log-mel spectrogram `[32, 128]` uint8 of a recording `[T]` at 8 kHz: 255 is its loudest value, 0 is 80 dB below."""
    signal = librosa.util.fix_length(np.asarray(audio, np.float32), size=_FRAMES * _HOP)
    power = librosa.feature.melspectrogram(
        y=signal, sr=_SAMPLE_RATE, n_fft=_FFT, win_length=_WINDOW, hop_length=_HOP, n_mels=_BANDS
    )
    decibels = librosa.power_to_db(power, ref=max(float(power.max()), 1.0), top_db=None)
    return np.rint(255 * np.clip(1 + decibels.T[:_FRAMES] / _DECIBELS, 0, 1)).astype(np.uint8)


def strokes(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns trajectories `[P, 200]` float32 in [0, 1] and classes `[P]` of one of UCI's files."""
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.int64, ndmin=2)
    except ValueError as error:
        raise ValueError(f"Expected lines of 16 coordinates and a class in {path}: {error}") from error
    if table.shape[1] != 17:
        raise ValueError(f"Expected lines of 16 coordinates and a class in {path}, got {table.shape[1]} columns.")
    if table[:, :-1].min() < 0 or table[:, :-1].max() > 100:
        raise ValueError(f"Expected coordinates in 0..100 in {path}, got {table[:, :-1].min()} to {table[:, :-1].max()}.")
    points = table[:, :-1].reshape(len(table), -1, 2) / 100.0
    return np.stack([resampled(stroke) for stroke in points]).astype(np.float32), table[:, -1]


def resampled(stroke: np.ndarray) -> np.ndarray:
    """Returns 100 points evenly spaced along the length of a stroke `[P, 2]`, as `[200]`: x, y, x, y, .."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(stroke, axis=0), axis=1))])
    along = np.linspace(0.0, length[-1], _POINTS)
    return np.stack([np.interp(along, length, stroke[:, axis]) for axis in range(2)], axis=1).reshape(-1)
