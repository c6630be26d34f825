"""Fetches shared weights from the Hugging Face Hub into a folder that the other commands read.

    jnf-jax download USER/NAME --output shared/a

Only the files that `jnf-jax export` writes are fetched, and their checksum, names, shapes and types are checked.
"""

import dataclasses
import pathlib
from typing import Annotated

import tyro

from experiments import experiment
from jnf_jax.training import hub, weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Fetches shared weights from the Hugging Face Hub.

    Attributes:
      repository: `USER/NAME` on the Hub.
      output: folder for the files, new or empty.
      revision: branch, tag or commit; the newest where not given.
    """

    repository: Annotated[str, tyro.conf.Positional]
    output: pathlib.Path
    revision: str | None = None


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax download")
    folder = hub.from_hub(arguments.repository, revision=arguments.revision, folder=arguments.output)
    weights.load(folder)
    print(f"downloaded: {folder}")
    return 0


if __name__ == "__main__":
    experiment.main(main)
