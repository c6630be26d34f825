"""Compares ways to multiply the experts of one trained run: by a proper score, and by what users see.

    jnf-jax product-gap --workdir runs/a [--arms published default] [--results DIR] [..]

An arm is a rule of `posteriors.product` with a wall; all arms share the run's joint stage, marginal, experts and divisors, and are asked of the same
observations and codes. The arm `direct` is no product: its draws are those of the direct experts, in one subset of each size. Writes `product_gap/<arm>.json` into the run's folder (one that was killed goes on where it was), and a copy to
`DIR/<data set>/<model>/<arm>/seed_<n>.json`, by the names of the run's folder, `<data set>/<model>/seed_<n>` as `sweep` makes it. The product gap is the score of a direct expert of the same subset (`experiments.direct`), trained here,
less the product's.
"""

import dataclasses
import functools
import pathlib
import re
import time
from typing import Any

import jax
import numpy as np
import rich.console
import rich.table
import tyro

from experiments import classifiers as classifier_cache
from experiments import direct, evaluate, experiment, measures, parts, run_folder
from jnf_jax import keys, subsets, types
from jnf_jax.metrics import classifiers, coherence, subset_score
from jnf_jax.models import base, jnf
from jnf_jax.training import files, manifests, stages, writers

ARMS = {
    "published": {"product_rule": "prior", "outside": 1e-3},
    "published_wall": {"product_rule": "prior", "outside": 0.5},
    "marginal": {"product_rule": "marginal", "outside": 1e-3},
    "geometric": {"product_rule": "geometric", "outside": 1e-3},
    "default": {},
    "direct": {},
}
_SEED_OF_DIRECT = 0  # direct experts stay in the run's folder, and serve every `--seed`
_LONG = {"num_chains": 4, "thinning": 2, "num_warmup": 100}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compares ways to multiply the experts of one trained run.

    Attributes:
      workdir: folder of the run.
      arms: which ways.
      seed: of all draws; direct experts are trained once, whatever it is.
      num_observations: test observations behind coherence, distances, diversity and radius.
      num_samples: draws for each of them.
      num_scored: test observations behind the score.
      num_codes: codes of each of them.
      num_chained: test observations that long chains run for.
      chain_draws: draws of each of the four long chains.
      num_prior: draws of `sample_prior` behind the joint coherence.
      subsets: which subsets of two and more are observed: `all`; `sizes:N`, N of every size, evenly spaced; `random:N`, N of all of them.
      direct: whether direct experts are trained; there is no gap without them.
      results: folder that a copy goes to.
    """

    workdir: pathlib.Path
    arms: tuple[str, ...] = ("published", "published_wall", "default")
    seed: int = 0
    num_observations: int = 300
    num_samples: int = 4
    num_scored: int = 100
    num_codes: int = 8
    num_chained: int = 40
    chain_draws: int = 500
    num_prior: int = 10_000
    subsets: str = "sizes:10"
    direct: bool = True
    results: pathlib.Path | None = None


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax product-gap")
    if unknown := set(arguments.arms) - set(ARMS):
        raise ValueError(f"Expected arms of {sorted(ARMS)}, got {sorted(unknown)}.")
    counts = [field.name for field in dataclasses.fields(arguments) if field.name.startswith("num_")]
    experiment.check_counts(arguments, *counts, "chain_draws")
    experiment.check_counts(arguments, "num_observations", "num_scored", "num_samples", least=2)
    if "direct" in arguments.arms and not arguments.direct:
        raise ValueError("Expected direct experts for the arm 'direct', got --no-direct.")
    config = run_folder.load(arguments.workdir)
    names = tuple(experiment.build(config)[0].specs)
    if not isinstance(config.model, jnf.Config) or len(names) < 3:
        raise ValueError(
            f"Expected a JNF of at least three modalities in {arguments.workdir}: no other model multiplies experts."
        )
    subsets.choose(names, arguments.subsets)  # raises before direct experts are trained
    found = {}
    with run_folder.lease(arguments.workdir), writers.Progress() as progress:
        shared = prepare(arguments, config, progress)
        for arm in arguments.arms:
            path = arguments.workdir / "product_gap" / f"{arm}.json"
            path.parent.mkdir(exist_ok=True)
            asked = {n: v for n, v in dataclasses.asdict(arguments).items() if n not in ("workdir", "arms", "results")}
            kept = parts.Parts(path.with_suffix(".parts.json"), asked | {"weights": manifests.digest(shared.params)})
            found[arm] = {"arm": arm, "settings": ARMS[arm]} | measure(arguments, config, arm, shared, kept, progress)
            found[arm]["seconds"] = kept.seconds
            for target in (path, *_copies(arguments, config, arm)):
                target.parent.mkdir(parents=True, exist_ok=True)
                files.write_json(target, found[arm])
            kept.remove()
    show(found)
    return 0


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all arms are asked with.

    Attributes:
      params: of the run.
      data: its splits.
      test: the observations.
      codes: `[num_codes, num_scored, D]`.
      direct: subset -> its direct expert and the parameters of it.
      direct_score: subset -> its direct expert's score `[num_scored]`.
      judged: the classifiers, their parameters and what they see in the test set.
    """

    params: types.Params
    data: Any
    test: Any
    codes: np.ndarray
    direct: dict[subsets.Subset, tuple[base.Model, types.Params]]
    direct_score: dict[subsets.Subset, np.ndarray]
    judged: tuple


def prepare(arguments: Arguments, config: experiment.Config, progress: writers.Progress) -> Shared:
    """Returns what all arms share; direct experts are trained where they are not there yet."""
    model, data = experiment.build(config)
    params = stages.load(model, arguments.workdir, data=data)
    judges, judge_params = classifier_cache.trained(config, data, progress)
    real = {name: classifiers.judged(judges, judge_params, name, x) for name, x in data["test"].complete().arrays.items()}
    key = jax.random.key(arguments.seed)
    test = data["test"].complete()
    scored = test.take(arguments.num_observations).take(arguments.num_scored)
    codes = np.asarray(subset_score.draw_codes(model, params, key, dict(scored.arrays), num_codes=arguments.num_codes))
    names, experts, scores = tuple(model.specs), {}, {}
    for subset in (names[:size] for size in range(2, min(len(names), 5) if arguments.direct else 2)):
        observed = {name: scored.arrays[name] for name in subset}
        progress.say(f"direct expert of {subsets.label(subset)}")
        whole = direct.build(config.model, model.specs, params, subset)
        trained = direct.train(
            whole, keys.stream(jax.random.key(_SEED_OF_DIRECT), subsets.label(subset)), data.complete(), training=config.training["experts"], folder=arguments.workdir,
            on_report=lambda report: progress.update(report.stage, report.step, report.num_steps, f"loss {report.loss:.4g}"),
        )  # fmt: skip
        experts[subset] = whole, trained
        scores[subset] = subset_score.score(whole, trained, key, observed, codes).values
    return Shared(
        params, data.complete(), test.take(arguments.num_observations), codes, experts, scores, (judges, judge_params, real)
    )


def build_arm(config: experiment.Config, arm: str, shared: Shared, sampler: dict | None = None) -> base.Model:
    """Returns the model of an arm, whose chains have the settings of `sampler` in place of the run's own where given."""
    settings = dict(ARMS[arm])
    model_config = config.model
    if "outside" in settings:
        chains = dataclasses.replace(model_config.sampler, outside=settings.pop("outside"))
        model_config = dataclasses.replace(model_config, sampler=chains)
    model_config = dataclasses.replace(model_config, **settings)
    if sampler:
        model_config = dataclasses.replace(model_config, sampler=dataclasses.replace(model_config.sampler, **sampler))
    return jnf.build(model_config, shared.data["test"].specs)


def measure(
    arguments: Arguments, config: experiment.Config, arm: str, shared: Shared, kept: parts.Parts, progress: writers.Progress
) -> dict[str, Any]:
    """Returns all that is measured of one arm."""
    model, long = build_arm(config, arm, shared), build_arm(config, arm, shared, _LONG)
    judges, judge_params, real = shared.judged
    run = measures.Run(
        model=model, params=shared.params, test=shared.test, key=jax.random.key(arguments.seed), batch_size=100, judges=judges,
        judge_params=judge_params, real=real, real_labels=shared.data["test"].labels, inception=None, on_progress=progress.update,
    )  # fmt: skip
    names = tuple(model.specs)
    chosen = [s for s in subsets.choose(names, arguments.subsets) if len(s) > 1]
    if arm == "direct":
        chosen, long = list(shared.direct), None
    by_subset = {}
    for number, subset in enumerate(chosen):
        label = subsets.label(subset)
        progress.update(arm, number, len(chosen), label)
        if arm == "direct":
            model, params = shared.direct[subset]
            run = dataclasses.replace(run, model=model, params=params)
        one = functools.partial(of_subset, arguments, run, long, shared, subset)
        by_subset[subset] = kept.get(f"subset {label}", one)
    progress.update(arm, len(chosen), len(chosen))
    prior = kept.get("joint", lambda: _joint_coherence(run, arguments.num_prior))
    return summary(by_subset, shared) | {"joint_coherence": prior}


def of_subset(
    arguments: Arguments, run: measures.Run, long: base.Model | None, shared: Shared, subset: subsets.Subset
) -> dict[str, Any]:
    """Returns what is measured of one subset; `long` has the long chains behind R-hat, None where there are no chains."""
    key = keys.stream(keys.stream(run.key, "product gap"), subsets.label(subset))
    scored, chained = run.test.take(arguments.num_scored), run.test.take(arguments.num_chained)
    observed = {name: scored.arrays[name] for name in subset}
    begun = time.monotonic()
    draws = run.draw(subset, "posterior", run.test, arguments.num_samples)
    seconds = time.monotonic() - begun
    found = measures.of_draws(
        run, subset, draws, summary=functools.partial(evaluate.chain_summary, threshold=evaluate.SHORT_RHAT)
    )
    score = subset_score.score(run.model, run.params, key, observed, shared.codes)
    rhat = np.empty(0)
    if long is not None:
        num = 4 * arguments.chain_draws
        rhat = coherence.draw(long, run.params, key, chained, subset, num_samples=num, batch_size=len(chained)).info.rhat
    codes_square = float((shared.codes**2).sum(-1).mean())
    draws_square = float((draws.z[:, : len(scored)] ** 2).sum(-1).mean())
    return found | {
        "score": np.round(score.values, 4).tolist(),
        "radius_ratio": draws_square / codes_square,
        "two_sample_accuracy": subset_score.two_sample_accuracy(shared.codes[0], draws.z[0, : len(scored)]),
        "rhat": np.round(np.asarray(rhat), 4).tolist(),
        "seconds": seconds,
    }


def summary(by_subset: dict[subsets.Subset, dict], shared: Shared) -> dict[str, Any]:
    """Returns the table of an arm: by size, means over subsets; standard errors are over observations."""
    sizes = sorted({len(subset) for subset in by_subset})
    of = lambda size, what: [found[what] for subset, found in by_subset.items() if len(subset) == size]
    mean = lambda size, what: float(np.mean(of(size, what)))
    every = lambda founds, values=dict.values: [v for found in founds for v in values(found)]

    def targets(what, values=dict.values):  # judges that are rules have no features, and classes may fix a modality
        by_size = {str(n): every(of(n, what), values) for n in sizes}
        return {"by_size": {n: float(np.mean(found)) for n, found in by_size.items() if found}}

    diversities = every(found["diversity"] for found in by_subset.values())
    scores = shared.direct_score
    gaps = {len(s): scores[s] - np.asarray(by_subset[s]["score"]) for s in scores if s in by_subset}
    return {
        "score": {"by_size": {str(n): _with_error(np.mean(of(n, "score"), axis=0)) for n in sizes}},
        "gap": {"by_size": {str(n): _with_error(gap) for n, gap in gaps.items()}},
        "direct_score": {subsets.label(s): _with_error(values) for s, values in scores.items()},
        "radius_ratio": {"by_size": {str(n): mean(n, "radius_ratio") for n in sizes}},
        "two_sample_accuracy": {"by_size": {str(n): mean(n, "two_sample_accuracy") for n in sizes}},
        "rhat_share_below": _rhat_shares([found["rhat"] for found in by_subset.values() if found["rhat"]]),
        "coherence": targets("coherence"),
        "frechet": targets("frechet", lambda found: [distances["distance"] for distances in found.values()]),
        **({"diversity": float(np.mean(diversities))} if diversities else {}),
        "by_subset": {subsets.label(subset): found for subset, found in by_subset.items()},
    }


def _rhat_shares(by_subset: list[list[float]]) -> dict[str, float] | None:
    """Returns the share of observations whose long chains agree; None where there are no chains."""
    if not by_subset:
        return None
    below = [(np.asarray(values) < evaluate.LONG_RHAT).mean() for values in by_subset]
    return {
        "threshold": evaluate.LONG_RHAT,
        "mean": float(np.mean(below)),
        "smallest": float(min(below)),
        "largest_rhat": float(np.max(np.concatenate(by_subset))),
    }


def _joint_coherence(run: measures.Run, num: int) -> float:
    z = np.asarray(run.model.sample_prior(run.params, keys.stream(run.key, "prior"), num_samples=num))
    return coherence.joint(coherence.classes_of(run.judge(z)))


def _with_error(values: Any) -> dict[str, Any]:
    return measures.with_error(values) | {"values": np.round(values, 3).tolist()}


def _copies(arguments: Arguments, config: experiment.Config, arm: str) -> list[pathlib.Path]:
    if arguments.results is None:
        return []
    return [arguments.results.joinpath(*_names(arguments.workdir), arm, f"seed_{config.seed}.json")]


def _names(workdir: pathlib.Path) -> tuple[str, ...]:
    """Returns data set and model of a folder `<data set>/<model>/seed_<n>`, or a name of its own of any other."""
    *_, data, model, name = ("runs", "runs", *workdir.resolve().parts[1:])
    return (data, model) if re.fullmatch(r"seed_\d+", name) else (model, name)


def show(found: dict[str, dict]) -> None:
    """Prints a row for every arm."""
    table = rich.table.Table(title="Products of experts, by size of the subset", title_justify="left")
    for column in (
        "arm",
        "score, nats",
        "gap to a direct expert",
        "radius",
        "coherence",
        "Fréchet",
        "diversity",
        "R-hat < 1.01",
    ):
        table.add_column(column)
    numbers = lambda entry, digits: " / ".join(f"{v['mean'] if isinstance(v, dict) else v:.{digits}f}" for v in entry.values())
    for arm, result in found.items():
        of = lambda name, digits: numbers(result[name]["by_size"], digits)
        table.add_row(
            arm, of("score", 2), of("gap", 2), of("radius_ratio", 2), of("coherence", 3), of("frechet", 1),
            f"{result['diversity']:.2f}" if "diversity" in result else "",
            f"{result['rhat_share_below']['mean']:.3f}" if result["rhat_share_below"] else "",
        )  # fmt: skip
    rich.console.Console().print(table)


if __name__ == "__main__":
    experiment.main(main)
