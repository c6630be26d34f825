"""PolyMNIST: five colour pictures of a digit (Sutter et al., 2021), from its archive.

    m0 .. m4       28x28x3 uint8, Laplace(scale) or Gaussian on [0, 1]

`PolyMNIST.zip` of Zenodo's record 4899160 holds `.../{train,test}/m{j}/{number}.{class}.png`; files of one number and class are one example. No checksum of
the archive is known here, so it is not downloaded: lay it under `$JNF_DATA_DIR/polymnist/`. A tenth of its 60,000 training examples is kept
for validation, by class; which MNIST digits a picture shows is not told, so one digit may be on both sides in two modalities.
"""

import collections
import dataclasses
import io
import pathlib
import re
import zipfile

import numpy as np
import PIL.Image

from jnf_jax.data import files, pairing, polymnist_family, prepared, source

MODALITIES = tuple(f"m{j}" for j in range(5))
_RAW = files.RawFile(name="polymnist/PolyMNIST.zip", hint="It is https://zenodo.org/record/4899160/files/PolyMNIST.zip.")
_ENTRY = re.compile(r"(?:.*/)?(train|test)/(m\d)/(\d+)\.(\d)\.png")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(polymnist_family.Config):
    """PolyMNIST."""


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split.

    Raises:
      ValueError: if the split is unknown or the archive holds something else.
      FileNotFoundError: if the archive is missing.
    """
    path = files.find(_RAW)
    return prepared.load(
        config,
        split,
        specs=dict.fromkeys(MODALITIES, polymnist_family.image_spec(config)),
        dtypes=dict.fromkeys(MODALITIES, np.uint8),
        raw=files.sha256([path]),
        make=lambda split: _examples(config, path, split),
    )


def _examples(config: Config, path: pathlib.Path, split: source.Split) -> prepared.Examples:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"Expected a zip archive at {path}: {error}") from error
    part = "test" if split == "test" else "train"
    entries = _entries(archive, part)
    labels = np.asarray([label for _, label in entries])
    if split != "test":
        rows = pairing.holdout(config.seed, labels, config.validation_fraction)[split]
        entries, labels = [entries[i] for i in rows], labels[rows]

    def view(name):
        return lambda rows: np.stack([_image(archive, views[name]) for views, _ in entries[rows]])

    return prepared.Examples(labels, {name: view(name) for name in MODALITIES})


def _entries(archive: zipfile.ZipFile, part: str) -> list[tuple[dict[str, str], int]]:
    """Returns modality -> entry, and the class, of every example, by number and class."""
    found: dict[tuple[int, int], dict[str, str]] = collections.defaultdict(dict)
    for entry in archive.namelist():
        if (match := _ENTRY.fullmatch(entry)) and match[1] == part:
            found[int(match[3]), int(match[4])][match[2]] = entry
    for (number, label), views in found.items():
        if set(views) != set(MODALITIES):
            raise ValueError(
                f"Expected {part}/m0 to m4 of example {number}.{label} in {archive.filename}, got {sorted(views)}."
            )
    if not found:
        raise ValueError(f"Expected entries like {part}/m0/12.7.png in {archive.filename}, got none.")
    return [(views, label) for (_, label), views in sorted(found.items())]


def _image(archive: zipfile.ZipFile, entry: str) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(archive.read(entry))) as image:
        return np.asarray(image.convert("RGB"))
