"""Draws from a trained run: a grid per subset, the observation first, then draws of every modality.

    jnf-jax sample --workdir runs/demo [--observe m0,m2] [--num-samples 8]

Without `--observe` every subset is drawn, or those of `--subsets`, and the empty one (the prior) too.
"""

import dataclasses
import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np
import tyro

from experiments import experiment, pictures
from jnf_jax import distributions, keys, subsets
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
            figure.savefig(folder / f"{subsets.label(subset)}.png", dpi=110)
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
    images = {name: np.asarray(distributions.mean(model.specs[name], value)) for name, value in model.decode(params, z).items()}
    shown = {name: np.asarray(distributions.canonical(model.specs[name], x)) for name, x in observed.items()}
    blocks = []
    for i in range(num):
        block = []
        for name, spec in model.specs.items():
            real = [pictures.as_image(spec, shown[name][i]) if name in shown else None] if subset else []
            block.append(real + [pictures.as_image(spec, image[i]) for image in images[name]])
        blocks.append((f"#{rows[i]}" if subset else f"draws {i + 1}", block))
    title = f"observed: {', '.join(subset)}; then draws" if subset else "draws of the prior"
    return pictures.grid(blocks, title=title, divider=1 if subset else None)


if __name__ == "__main__":
    experiment.main(main)
