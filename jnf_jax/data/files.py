"""Raw files: where they lie, and where they come from.

A file is looked for in `$JNF_DATA_DIR`, then among earlier downloads, and downloaded where its address and checksum are known. Whatever was
downloaded is checked against its sha256 before anyone reads it.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable

import pooch
import requests

from jnf_jax import cache

_TIMEOUT = 20.0  # seconds without an answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawFile:
    """A file of a data set as its authors publish it.

    Attributes:
      name: path under `$JNF_DATA_DIR`.
      url: official address; None where it cannot be had by an address and a checksum.
      sha256: of its content, hexadecimal; needed where there is a url.
      hint: where it comes from and how to make it, for whoever has to lay it by hand.
    """

    name: str
    url: str | None = None
    sha256: str | None = None
    hint: str = ""

    def __post_init__(self):
        if self.url is not None and self.sha256 is None:
            raise ValueError(f"Expected a checksum for what is downloaded, got none for {self.url}.")


def find(*alternatives: RawFile) -> pathlib.Path:
    """Returns the first of the alternatives that is there, or else the first that can be downloaded.

    Raises:
      FileNotFoundError: if none is there and none can be downloaded; the message names every place that was tried.
      ValueError: if what was downloaded has another checksum.
    """
    tried = []
    for file in alternatives:
        for path in _places(file):
            if path.is_file():
                return path
            tried.append(str(path))
    for file in alternatives:
        if file.url is not None:
            try:
                return _download(file)
            except requests.exceptions.RequestException as error:
                tried.append(f"{file.url} ({error})")
    hints = " ".join(dict.fromkeys(file.hint for file in alternatives if file.hint))
    variable = "" if os.environ.get("JNF_DATA_DIR") else " JNF_DATA_DIR, the folder of raw files, is not set."
    raise FileNotFoundError(f"Expected a raw file at one of: {', '.join(tried)}.{variable} {hints}".rstrip())


def is_at_hand(*alternatives: RawFile) -> bool:
    """Returns whether one of the alternatives is there without a download."""
    return any(path.is_file() for file in alternatives for path in _places(file))


def folder(name: str, pattern: str, hint: str = "") -> list[pathlib.Path]:
    """Returns the files `pattern` of a folder under `$JNF_DATA_DIR`, by name.

    Raises:
      FileNotFoundError: if there are none.
    """
    root = os.environ.get("JNF_DATA_DIR")
    found = sorted(pathlib.Path(root, name).glob(pattern)) if root else []
    if not found:
        raise FileNotFoundError(
            f"Expected files {name}/{pattern} in the folder that JNF_DATA_DIR names, got {root}. {hint}".rstrip()
        )
    return found


def sha256(paths: Iterable[pathlib.Path]) -> dict[str, str]:
    """Returns name -> checksum of files."""
    digests = {}
    for path in paths:
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _places(file: RawFile) -> list[pathlib.Path]:
    root = os.environ.get("JNF_DATA_DIR")
    return [*([pathlib.Path(root, file.name)] if root else []), cache.directory() / "raw" / file.name]


def _download(file: RawFile) -> pathlib.Path:
    path = cache.directory() / "raw" / file.name
    fetch = pooch.HTTPDownloader(timeout=_TIMEOUT)
    try:
        found = pooch.retrieve(file.url, f"sha256:{file.sha256}", fname=path.name, path=path.parent, downloader=fetch)
    except ValueError as error:
        raise ValueError(f"Expected the sha256 {file.sha256} of {file.url}: {error}") from error
    return pathlib.Path(found)
