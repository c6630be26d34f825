"""Files that are either whole or not there, and what is wrong with one that is not whole."""

import hashlib
import json
import os
import pathlib
import stat
from typing import Any

_MOST_BYTES = 2**28  # of a JSON file; a larger one is none of ours


class DamagedError(ValueError):
    """What was written before is not whole any more."""


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of it."""
    write_text(path, json.dumps(value, indent=1))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file so that a reader sees the old one or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: pathlib.Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
      DamagedError: if it is no plain file or holds no JSON; the text names the file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode) or path.stat().st_size > _MOST_BYTES:
            raise DamagedError(f"{path} is no plain file of JSON")
        return json.loads(path.read_text(encoding="utf-8"))
    except DamagedError:
        raise
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of Unicode, of JSON, of thousands of brackets
        raise DamagedError(f"{path} holds no JSON: {type(error).__name__}") from error


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Returns the JSON object that a file holds; errors as in `read_json`, also where it holds another value."""
    if not isinstance(value := read_json(path), dict):
        raise DamagedError(f"{path} holds no JSON object")
    return value


def json_sum(content: Any) -> str:
    """Returns the sha256 of JSON values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256(path: pathlib.Path) -> str:
    """Returns the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
