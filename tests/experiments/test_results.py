"""The committed results are of today's configs, and the README's toy tables say what they say."""

import contextlib
import dataclasses
import json
import pathlib

import pytest

from experiments import experiment
from jnf_jax.marginals import standard_normal

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
RUNS = sorted(str(path.parent.relative_to(RESULTS)) for path in RESULTS.rglob("config.json"))


def published(model, sampler):
    """The model with the published product, inside the wall that it had."""
    return dataclasses.replace(model, marginal=standard_normal.Config(), product_rule="prior", sampler=sampler)


@pytest.mark.parametrize("run", RUNS)
def test_settings_are_those_of_the_experiment(run):
    name = "/".join(pathlib.Path(run).parts[:2])
    sizes = [experiment.find(name)]
    with contextlib.suppress(ValueError):  # it has no quick size
        sizes.append(experiment.find(name, quick=True))
    config = experiment.load(RESULTS / run)
    if getattr(config.model, "product_rule", None) == "prior":  # made by the published product: the rest has to agree
        sizes = [dataclasses.replace(size, model=published(size.model, config.model.sampler)) for size in sizes]
    assert config in [dataclasses.replace(size, seed=config.seed) for size in sizes], "run it again"


def read(run: str) -> tuple[dict, dict]:
    gap, evaluation = (
        json.loads((RESULTS / "toy" / run / f"{name}.json").read_text()) for name in ("inference_gap", "evaluation")
    )
    return gap["by_subset"], evaluation["coherence"]["by_subset"]


@pytest.mark.parametrize("model", ["gaussian", "jnf", "jnf_dcca", "jnf_cl"])
def test_the_readme_has_the_gaps_and_coherences_of_the_toy(model):
    text = lambda gap: f"{gap['mean']:.2f} ± {gap['standard_error']:.2f}"
    gaps, coherence = read(model)
    given = [gaps["square"], gaps["circle"]]
    cells = [text(gap.get("given_observation", gap)) for gap in given]
    cells += [text(gap) if gap["given"] == "features" else "" for gap in given]
    cells += [f"{coherence['square']['circle']:.3f}", f"{coherence['circle']['square']:.3f}"]
    assert f"| toy/{model} | {' | '.join(cells)} |" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_readme_has_the_gaps_of_every_seed_of_the_toy(seed):
    folder = "." if seed == experiment.find("toy/gaussian").seed else f"seed_{seed}"
    (plain, _), (flow, coherence) = read(f"gaussian/{folder}"), read(f"jnf/{folder}")
    cells = [str(seed)]
    for subset in ("square", "circle"):
        pair = plain[subset]["mean"], flow[subset]["mean"]
        cells += [f"{pair[0]:.2f}, {pair[1]:.2f}", f"{pair[1] / pair[0]:.2f}".removeprefix("0")]
    cells += [", ".join(f"{x:.3f}".removeprefix("0") for x in (coherence["square"]["circle"], coherence["circle"]["square"]))]
    assert f"| {' | '.join(cells)} |" in (ROOT / "README.md").read_text()
