"""Writes a trained run as a folder to share: weights, configs and a model card; nothing in it is code or pickled.

    jnf-jax export --workdir runs/a --output shared/a [--push USER/NAME [--private]]

The other commands read that folder as they read a run's: `jnf-jax sample --workdir shared/a`. `--push` also uploads it to the Hugging Face Hub,
and `jnf-jax download` fetches it from there.
"""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import tyro

from experiments import experiment, model_card, run_folder
from jnf_jax import configs
from jnf_jax.training import files, hub, manifests, stages, weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Writes a trained run as a folder to share.

    Attributes:
      workdir: folder of the run.
      output: folder to write, new or empty; or with this run's weights, whose metrics and card are written again.
      push: repository `USER/NAME` of the Hugging Face Hub that it is uploaded to as well.
      private: whether a repository that `push` makes is seen by its owner alone.
    """

    workdir: pathlib.Path
    output: pathlib.Path
    push: str | None = None
    private: bool = False


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax export")
    export(arguments.workdir, arguments.output)
    print(f"written: {arguments.output}")
    if arguments.push is not None:
        print(f"pushed: {hub.push_to_hub(arguments.output, arguments.push, private=arguments.private)}")
    return 0


def export(workdir: pathlib.Path, output: pathlib.Path) -> None:
    """Writes the run in `workdir` into `output`.

    Raises:
      ValueError: if the run is not finished, its JSON files are damaged, or `output` holds something but this run's weights.
    """
    config = run_folder.load(workdir)
    environment, evaluation = (_read(workdir / name) for name in ("environment.json", "evaluation.json"))
    model, _ = experiment.build(config)
    params = stages.load(model, workdir)
    packages = (environment or {}).get("packages", {})
    card = lambda folder, evaluation: model_card.write(folder, config, model.specs, params, packages, evaluation)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        if weights.found(output) and manifests.digest(weights.read(model, output)) == manifests.digest(params):
            _update(output, config, evaluation, card)
            return
        raise ValueError(f"Expected a new or an empty folder to write to, got {output}, which holds something.")
    output = output.absolute()  # `.` has no name
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"Expected a folder that can be written, got {output}: {error.strerror}.") from error
    try:
        weights.save(unfinished, params, config=config.model, specs=model.specs)
        _describe(unfinished, config, evaluation, card)
        unfinished.replace(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


_Card = Callable[[pathlib.Path, dict[str, Any] | None], str]  # (folder, evaluation) -> the model card


def _update(folder: pathlib.Path, config: experiment.Config, evaluation: dict[str, Any] | None, card: _Card) -> None:
    """Writes the run's newer measurements into a folder that has its weights; a card that somebody edited stays."""
    before, page = _read(folder / "evaluation.json"), folder / model_card.NAME
    edited = page.read_text() if page.exists() else None
    if edited == card(folder, before):
        edited = None
    _describe(folder, config, before if evaluation is None else evaluation, card)
    if edited is not None:
        files.write_text(page, edited)


def _describe(folder: pathlib.Path, config: experiment.Config, evaluation: dict[str, Any] | None, card: _Card) -> None:
    """Writes what stands beside the weights."""
    files.write_json(folder / "config.json", configs.to_json(config))
    if evaluation is not None:
        files.write_json(folder / "evaluation.json", evaluation)
    files.write_text(folder / model_card.NAME, card(folder, evaluation))


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    return files.read_object(path) if path.exists() else None


if __name__ == "__main__":
    experiment.main(main)
