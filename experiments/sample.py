"""Draws from a trained run: a grid per subset, each test example first, then several draws of every modality.

    jnf-jax sample --workdir runs/demo [--observe m0,m2] [--num-samples 8]
    jnf-jax sample --workdir runs/demo --observe m0,m2 --all --output shards [--on ray]

Without `--observe` every subset is drawn, or those of `--subsets`, and the empty one (the prior) too. A draw is a draw of z; what is shown is
the likelihood's mean, beside how far observations of the likelihood spread. A command that was killed goes on where it was. `--all` draws
codes for every example of a split, into parquet files.
"""

import dataclasses
import functools
import hashlib
import pathlib
from typing import Literal

import jax
import matplotlib.pyplot as plt
import numpy as np
import tyro

from experiments import experiment, on_ray, parts, pictures, run_folder, shards
from jnf_jax import distributions, keys, specs, subsets, types
from jnf_jax.data import source
from jnf_jax.models import base
from jnf_jax.training import manifests, stages, writers

_LONGEST = 180  # characters of a name of a picture
_MOST_TILES = 100  # in a row of a picture, or below each other
_OBSERVED = 300  # of a likelihood, for percentiles


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Draws from a trained run, pictures into samples/ of its folder.

    Attributes:
      workdir: folder of the run.
      observe: modalities to observe, separated by commas; the empty text is the prior; many subsets where not given.
      subsets: these: `all`; `sizes`, four of every size, or `sizes:N`; `random:N`, N of all of them.
      num_samples: draws of each observation.
      num_observations: test observations shown.
      first: number of the first test observation.
      seed: of the draws.
      all: whether codes are drawn for every example of a split.
      output: folder of the shards of `all`.
      split: of `all`.
      per_shard: examples in a shard of `all`.
      on: `here`, or `ray`: each shard of `all` is a task of a Ray cluster.
      cpus: cores of a Ray task.
      gpus: accelerators of a Ray task.
    """

    workdir: pathlib.Path
    observe: str | None = None
    subsets: str = "all"
    num_samples: int = 6
    num_observations: int = 4
    first: int = 0
    seed: int = 0
    all: bool = False
    output: pathlib.Path | None = None
    split: Literal["train", "validation", "test"] = "test"
    per_shard: int = 1_000
    on: Literal["here", "ray"] = "here"
    cpus: float = 1
    gpus: float = 0


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax sample")
    experiment.check_counts(arguments, "num_samples", "num_observations")
    experiment.check_counts(arguments, "first", least=0)
    if arguments.all:
        return draw_all(arguments)
    for name in ("output", "split", "per_shard", "on", "cpus", "gpus"):
        if getattr(arguments, name) != getattr(Arguments, name):
            raise ValueError(f"Expected --all with --{name.replace('_', '-')}, which is of shards alone, got no --all.")
    for name in ("num_samples", "num_observations"):
        if (number := getattr(arguments, name)) > _MOST_TILES:
            flag = name.replace("_", "-")
            raise ValueError(
                f"Expected --{flag} of at most {_MOST_TILES} in a picture, got {number}; --all draws codes, any number."
            )
    config = run_folder.load(arguments.workdir)
    model, data = experiment.build(config)
    names = tuple(model.specs)
    if arguments.observe is not None:
        chosen = [subsets.parse(names, arguments.observe)]
    else:
        chosen = [(), *subsets.choose(names, arguments.subsets), names]
    params = stages.load(model, arguments.workdir, data={"test": data["test"]})
    folder = arguments.workdir / "samples"
    folder.mkdir(exist_ok=True)
    with run_folder.lease(arguments.workdir), writers.Progress() as progress:
        asked = {name: value for name, value in dataclasses.asdict(arguments).items() if name not in ("workdir", "observe")}
        found = parts.Parts(folder / "sample.parts.json", asked | {"weights": manifests.digest(params)})
        for done, subset in enumerate(chosen):
            progress.update("sampling", done, len(chosen), subsets.label(subset))
            if arguments.observe is None and not data["test"].having(subset).any():
                progress.say(f"no test example has {', '.join(subset)}")
                continue
            path = folder / f"{_stem(subset)}.png"
            save = functools.partial(_save, path, model, params, data["test"], subset, arguments)
            if found.get(path.name, save) != (_digest(path) if path.is_file() else None):
                save()  # the picture is another one by now
        progress.update("sampling", len(chosen), len(chosen))
        found.remove()
    print(f"pictures: {folder}")
    return 0


def draw_all(arguments: Arguments) -> int:
    """Draws codes for a whole split; returns the exit code.

    Raises:
      ValueError: if no folder or no modality is given; as `shards.plan`.
    """
    if arguments.output is None or not arguments.observe:
        raise ValueError("Expected --output, and modalities to --observe, with --all, got none of one of them.")
    job = shards.Job(
        workdir=str(arguments.workdir.resolve()), output=str(arguments.output.resolve()), observe=arguments.observe,
        split=arguments.split, num_samples=arguments.num_samples, per_shard=arguments.per_shard, seed=arguments.seed,
    )  # fmt: skip
    found = shards.plan(job)
    missing = [(job, found.asked, number) for number in found.missing]
    if arguments.on == "ray":
        done = on_ray.run(shards.draw, missing, cpus=arguments.cpus, gpus=arguments.gpus)
    else:
        done = (shards.draw(*part) for part in missing)
    with writers.Progress() as progress:
        for number, _ in enumerate(done, start=1):
            progress.update("shards", number, len(missing))
    print(f"written: {shards.finish(job, found)}")
    return 0


def _stem(subset: subsets.Subset) -> str:
    """Returns a subset's label as the name of a file, with a checksum in place of its end where it would be too long for one."""
    label = subsets.label(subset)
    return label if len(label) <= _LONGEST else f"{label[:_LONGEST]}_{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def _save(path: pathlib.Path, *args) -> str:
    figure = draw(*args)
    temporary = path.with_suffix(".tmp")
    figure.savefig(temporary, dpi=160, format="png")
    plt.close(figure)
    temporary.replace(path)
    return _digest(path)


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def draw(model: base.Model, params, test: source.Source, subset: subsets.Subset, arguments: Arguments) -> plt.Figure:
    """Returns the grid of one subset."""
    key = keys.stream(jax.random.key(arguments.seed), subsets.label(subset))
    num = arguments.num_observations
    having = np.flatnonzero(test.having(subset))
    if not len(having):
        raise ValueError(f"Expected a test example that has {', '.join(subset)}, got none.")
    rows = having[(arguments.first + np.arange(num)) % len(having)]
    observed = {name: test.arrays[name][rows] for name in subset}
    if subset:
        z, _ = model.sample_posterior(params, key, observed, num_samples=arguments.num_samples)
    else:
        z = model.sample_prior(params, key, num_samples=arguments.num_samples * num)
        z = jax.tree.map(lambda leaf: leaf.reshape(arguments.num_samples, num, -1), z)
    decoded = model.decode(params, z)
    drawn = {name: np.asarray(distributions.mean(model.specs[name], value)) for name, value in decoded.items()}
    spread = {n: _observable(spec, keys.stream(key, n), decoded[n]) for n, spec in model.specs.items()} if subset else {}
    scales, real = _canonical(model.specs, test, rows)
    blocks = []
    for i in range(num):
        block = []
        for name, spec in model.specs.items():
            see = functools.partial(pictures.tile, spec, limits=scales[name])
            draws = drawn[name][:, i]
            if subset:
                truth = real[name][i] if test.having((name,))[rows[i]] else None
                first = None if truth is None else see(truth)
                shown = [pictures.framed(first) if name in subset else first]
                seen = None if spread[name] is None else spread[name][:, i]
                shown += [see(x, truth=truth, draws=seen) for x in draws]
            else:
                shown = [see(x) for x in draws]
            block.append((pictures.caption(name, spec, scales[name]), shown))
        blocks.append((f"test example {rows[i]}" if subset else "", block))
    if not subset:
        return pictures.grid(
            blocks, title="Draws from the prior (of the marginal fitted to the codes, where the model has one)"
        )
    title = f"Draws given {', '.join(subset)} (framed)."
    if test.masks:
        title += " No tile: not measured."
    if any(pictures.kind(spec) in ("bars", "curve", "words") for spec in model.specs.values()):
        title += " Blue: the values. In draws, orange: the test example; grey: 90% of what could be observed."
    headings = ["test", *(f"draw {n + 1}" for n in range(arguments.num_samples))]
    return pictures.grid(blocks, title=title, divider=1, headings=headings)


def _observable(spec: specs.ModalitySpec, key: types.Array, parameters: types.Array) -> np.ndarray | None:
    """Returns observations `[M, B, *shape]` of the likelihood of each draw `[S, B, ..]`, where a tile shows how far they spread."""
    if pictures.kind(spec) not in ("bars", "curve", "words"):
        return None
    observe = jax.vmap(lambda key: distributions.sample(spec, key, parameters))
    found = np.asarray(observe(jax.random.split(key, -(-_OBSERVED // len(parameters)))))
    return found.reshape(-1, *found.shape[2:])


def _canonical(
    modalities: specs.Specs, test: source.Source, rows: np.ndarray, *, num_scaled: int = 500
) -> tuple[dict[str, pictures.Limits], dict[str, np.ndarray]]:
    """Returns the range of every modality's tiles, and the chosen test examples."""
    see = lambda name, x: np.asarray(distributions.canonical(modalities[name], x))
    measured = {name: test.arrays[name][np.flatnonzero(test.having((name,)))[:num_scaled]] for name in modalities}
    scales = {name: pictures.limits(spec, see(name, measured[name])) for name, spec in modalities.items()}
    return scales, {name: see(name, test.arrays[name][rows]) for name in modalities}


if __name__ == "__main__":
    experiment.main(main)
