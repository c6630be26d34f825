"""Draws from a trained run: a grid per subset, each test example first, then several draws of every modality.

    jnf-jax sample --workdir runs/demo [--observe m0,m2] [--num-samples 8]

Without `--observe` every subset is drawn, or those of `--subsets`, and the empty one (the prior) too. A draw is a draw of z; what is shown is
the likelihood's mean.
"""

import dataclasses
import functools
import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np
import tyro

from experiments import experiment, pictures
from jnf_jax import distributions, keys, specs, subsets
from jnf_jax.data import source
from jnf_jax.models import base
from jnf_jax.training import stages, writers


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
    """

    workdir: pathlib.Path
    observe: str | None = None
    subsets: str = "all"
    num_samples: int = 6
    num_observations: int = 4
    first: int = 0
    seed: int = 0


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax sample")
    config = experiment.load(arguments.workdir)
    model, data = experiment.build(config)
    names = tuple(model.specs)
    if arguments.observe is not None:
        chosen = [subsets.parse(names, arguments.observe)]
    else:
        chosen = [(), *subsets.choose(names, arguments.subsets), names]
    params = stages.load(model, arguments.workdir)
    folder = arguments.workdir / "samples"
    folder.mkdir(exist_ok=True)
    with writers.Progress() as progress:
        for done, subset in enumerate(chosen):
            progress.update("sampling", done, len(chosen), subsets.label(subset))
            figure = draw(model, params, data["test"], subset, arguments)
            figure.savefig(folder / f"{subsets.label(subset)}.png", dpi=160)
            plt.close(figure)
        progress.update("sampling", len(chosen), len(chosen))
    print(f"pictures: {folder}")
    return 0


def draw(model: base.Model, params, test: source.Source, subset: subsets.Subset, arguments: Arguments) -> plt.Figure:
    """Returns the grid of one subset."""
    key = keys.stream(jax.random.key(arguments.seed), subsets.label(subset))
    num = arguments.num_observations
    rows = (arguments.first + np.arange(num)) % len(test)
    observed = {name: test.arrays[name][rows] for name in subset}
    if subset:
        z, _ = model.sample_posterior(params, key, observed, num_samples=arguments.num_samples)
    else:
        z = model.sample_prior(params, key, num_samples=arguments.num_samples * num)
        z = jax.tree.map(lambda leaf: leaf.reshape(arguments.num_samples, num, -1), z)
    drawn = {name: np.asarray(distributions.mean(model.specs[name], value)) for name, value in model.decode(params, z).items()}
    scales, real = _canonical(model.specs, test, rows)
    blocks = []
    for i in range(num):
        block = []
        for name, spec in model.specs.items():
            see = functools.partial(pictures.tile, spec, limits=scales[name])
            draws = drawn[name][:, i]
            if subset:
                first = see(real[name][i])
                shown = [pictures.framed(first) if name in subset else first]
                shown += [see(x, truth=real[name][i], draws=draws) for x in draws]
            else:
                shown = [see(x) for x in draws]
            block.append((pictures.caption(name, spec, scales[name]), shown))
        blocks.append((f"test example {rows[i]}" if subset else "", block))
    if not subset:
        return pictures.grid(
            blocks, title="Draws from the prior (of the marginal fitted to the codes, where the model has one)"
        )
    title = f"Draws given {', '.join(subset)} (framed)."
    if any(pictures.kind(spec) in ("bars", "curve", "words") for spec in model.specs.values()):
        title += " Blue: draw. Orange: test example. Grey: 5th to 95th percentile of draws."
    headings = ["test", *(f"draw {n + 1}" for n in range(arguments.num_samples))]
    return pictures.grid(blocks, title=title, divider=1, headings=headings)


def _canonical(
    modalities: specs.Specs, test: source.Source, rows: np.ndarray, *, num_scaled: int = 500
) -> tuple[dict[str, pictures.Limits], dict[str, np.ndarray]]:
    """Returns the range of every modality's tiles, and the chosen test examples."""
    part = test.take(num_scaled).arrays
    see = lambda name, x: np.asarray(distributions.canonical(modalities[name], x))
    scales = {name: pictures.limits(spec, see(name, part[name])) for name, spec in modalities.items()}
    return scales, {name: see(name, test.arrays[name][rows]) for name in modalities}


if __name__ == "__main__":
    experiment.main(main)
