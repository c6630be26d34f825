"""Images in folders, one folder a modality; files of one name show one example.

    photos/front/0001.png    photos/side/0001.jpg          or, with `class_folders`,
    photos/front/cat/01.png  photos/side/cat/01.jpg

A name is the path inside the modality's folder without its ending, so that `cat/01` and `dog/01` are two examples. Classes are those folders', or
come from a table with the columns `stem` and `label`. Images are turned upright, and transparent ones lie on white. Files whose names begin with
a dot are left out.
"""

import collections
import csv
import dataclasses
import pathlib
from typing import Literal

import numpy as np
import PIL.Image

from jnf_jax.data import images, reading, source

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(reading.Options):
    """Folders of images.

    Attributes:
      path: folder that holds the modalities' folders.
      modalities: names of these; all folders in alphabetical order where not given.
      size: (height, width) that images are scaled to; None: they have one size, each modality its own.
      mode: `RGB`, three channels, or `L`, one of grey.
      class_folders: whether a modality's folder holds a folder for each class.
      labels: table of classes, a .csv file with the columns `stem` and `label`, relative to `path`; None: there is none.
    """

    path: str = ""
    modalities: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    mode: Literal["RGB", "L"] = "RGB"
    class_folders: bool = False
    labels: str | None = None


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split.

    Raises:
      FileNotFoundError: if a folder or the table is missing.
      ValueError: if examples lack modalities, images have several sizes or more than 8 bits, or a class is unknown.
    """
    source.check_split(split)
    return reading.divided(config, split, read(config))


def read(config: Config) -> reading.Read:
    """Returns what is in the folders; errors as of `build`."""
    folder = pathlib.Path(config.path)
    if not config.path or not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder of images, got none at {config.path!r}.")
    names = config.modalities or tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not names:
        raise ValueError(f"Expected a folder for each modality in {config.path!r}, got none.")
    files = {name: _files(folder / name) for name in names}
    stems = {name: [p.relative_to(folder / name).with_suffix("").as_posix() for p in paths] for name, paths in files.items()}
    keys, rows = reading.match(stems)
    arrays = {name: _images(config, name, files[name], mine) for name, mine in rows.items()}
    masks = {name: mine >= 0 for name, mine in rows.items()}
    return reading.Read(arrays, _labels(config, folder, keys), masks, keys)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder of images, got none at {str(folder)!r}.")
    hidden = lambda path: any(part.startswith(".") for part in path.relative_to(folder).parts)
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and not hidden(p))
    if not found:
        raise ValueError(f"Expected images {', '.join(ENDINGS)} in {str(folder)!r}, got none.")
    return found


def _images(config: Config, name: str, files: list[pathlib.Path], rows: np.ndarray) -> np.ndarray:
    """Returns the images `[N, H, W, C]` uint8 of a modality, black where it is missing."""
    read = [_image(config, path) for path in files]
    for path, image in zip(files, read, strict=True):
        if image.shape != read[0].shape:
            raise ValueError(
                f"Expected images of one size in modality {name!r}, got {read[0].shape[:2]} in {files[0].name!r} and "
                f"{image.shape[:2]} in {path.name!r}: `size` scales them to one."
            )
    return np.stack([*read, np.zeros_like(read[0])])[rows]  # the last one stands for row -1


def _image(config: Config, path: pathlib.Path) -> np.ndarray:
    try:
        with PIL.Image.open(path) as image:
            return images.as_array(image, config.mode, size=config.size)
    except OSError as error:
        raise ValueError(f"Expected an image at {str(path)!r}, got another file: {error}") from error
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')} in {str(path)!r}.") from error


def _labels(config: Config, folder: pathlib.Path, keys: list[str]) -> np.ndarray | None:
    if config.labels is None:
        if not config.class_folders:
            return None
        if plain := [key for key in keys if "/" not in key]:
            raise ValueError(f"Expected every image in the folder of its class, got {reading.some(plain)} outside.")
        return np.asarray([key.split("/")[0] for key in keys])
    path = folder / config.labels
    if not path.is_file():
        raise FileNotFoundError(f"Expected a .csv file with the columns 'stem' and 'label', got no file at {str(path)!r}.")
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark of the encoding first
        table = csv.DictReader(file)
        if not {"stem", "label"} <= set(table.fieldnames or ()):
            raise ValueError(f"Expected the columns 'stem' and 'label' in {str(path)!r}, got {table.fieldnames}.")
        found = [(row["stem"], row["label"]) for row in table]
    known = dict(found)
    counts = collections.Counter(stem for stem, _ in found)
    if twice := sorted(stem for stem, count in counts.items() if count > 1):
        raise ValueError(f"Expected every image once in {str(path)!r}, got {reading.some(twice)} again.")
    if unknown := [key for key in keys if not known.get(key)]:
        raise ValueError(f"Expected a class for every image in {str(path)!r}, got none for {reading.some(unknown)}.")
    return np.asarray([known[key] for key in keys])
