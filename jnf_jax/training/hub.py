"""Folders of shared weights on the Hugging Face Hub.

    model, params = weights.load(hub.from_hub("user/name"))

Only the files named in `FILES` go up and come down, so that nothing else of a repository reaches this machine.
"""

import contextlib
import os
import pathlib
import tempfile
import types
from collections.abc import Iterator

from jnf_jax.training import weights

FILES = ("README.md", "config.json", "evaluation.json", weights.MODEL, weights.WEIGHTS)


def push_to_hub(folder: str | os.PathLike, repo: str, *, private: bool = False, message: str = "Add weights") -> str:
    """Uploads a folder of shared weights and returns the address of the commit; the repository is made where it is not there.

    Args:
      folder: that `weights.save` wrote, or `jnf-jax export`.
      repo: `user/name`.
      private: whether a repository that is made is seen by its owner alone.
      message: of the commit.

    Raises:
      ValueError: if the folder does not hold whole weights, the Hub is not reached, or `huggingface_hub` is not installed.
    """
    weights.describe(folder)
    with _reached(repo) as library:
        api = library.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        # those of older weights go; a page that somebody wrote stays
        absent = [name for name in FILES if name != "README.md" and not (pathlib.Path(folder) / name).exists()]
        return str(
            api.upload_folder(
                repo_id=repo,
                folder_path=str(folder),
                allow_patterns=list(FILES),
                delete_patterns=absent,
                commit_message=message,
            )
        )


def from_hub(repo: str, *, revision: str | None = None, folder: str | os.PathLike | None = None) -> pathlib.Path:
    """Downloads shared weights and returns their folder, for `weights.load`, once they are known to be whole.

    Args:
      repo: `user/name`.
      revision: branch, tag or commit; the newest where None.
      folder: where the files go, new or empty; the Hub's own cache where None.

    Raises:
      ValueError: if the repository does not hold whole weights or is not reached, the folder holds something, or `huggingface_hub` is not installed.
    """
    if folder is None:
        with _reached(repo) as library:
            found = library.snapshot_download(repo, revision=revision, allow_patterns=list(FILES))
        weights.describe(found)
        return pathlib.Path(found)
    folder = pathlib.Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"Expected a new or an empty folder to download to, got {folder}, which holds something.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # the library takes what lies in a folder for what it was asked for
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as unfinished:
        with _reached(repo) as library:
            library.snapshot_download(repo, revision=revision, local_dir=unfinished, allow_patterns=list(FILES))
        try:
            weights.describe(unfinished)
        except ValueError as error:
            raise ValueError(str(error).replace(unfinished, repo)) from error
        folder.mkdir(exist_ok=True)
        for name in FILES:
            if (path := pathlib.Path(unfinished) / name).exists():
                path.replace(folder / name)
    return folder


@contextlib.contextmanager
def _reached(repo: str) -> Iterator[types.ModuleType]:
    """Gives the library, and makes its errors one clear line."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise ValueError('Expected the package huggingface_hub, got none: pip install "jnf_jax[hub]".') from error
    of_transport = errors.HfHubHTTPError.__bases__  # among them the errors of the library that it reaches the Hub by
    try:
        yield huggingface_hub
    except (OSError, ValueError, *of_transport) as error:
        reason = str(error).strip().split("\n")[0].removeprefix("Got: ") or type(error).__name__
        raise ValueError(
            f"Expected a repository USER/NAME of the Hub that can be reached (a folder is read by weights.load), got {repo!r}: {reason}"
        ) from error
