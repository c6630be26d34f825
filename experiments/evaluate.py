"""Measures a trained run: coherence, likelihoods, diversity, and whether the chains can be trusted.

    jnf-jax evaluate --workdir runs/demo [--num-observations 500] [--chains-only] [..]

Writes `evaluation.json` into the run's folder and prints its tables; one that was killed goes on where it was. `--split validation` has a file of
its own, `evaluation_validation.json`. `--chains-only` runs the long chains behind
`hmc.long_chains` alone and adds them to the file.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np
import tyro

from experiments import classifiers as classifier_cache
from experiments import experiment, measures, parts, run_folder, tables
from jnf_jax import distributions, keys, subsets, types
from jnf_jax.data import source
from jnf_jax.metrics import classifiers, coherence, inception, reconstruction
from jnf_jax.models import base
from jnf_jax.training import files, manifests, stages, writers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measures a trained run and writes evaluation.json into its folder; of validation data, evaluation_validation.json.

    Attributes:
      workdir: folder of the run.
      split: the examples that stand for the test examples below, but for those of the long chains.
      seed: of all draws.
      subsets: which subsets are observed, beside the full one: `all`; `sizes`, four of every size, or `sizes:N`; `random:N`, N of all of them.
      num_observations: test observations behind coherence and diversity.
      num_samples: draws for each observation; the first one is judged for coherence, all of them for diversity.
      num_prior: draws of the prior, and of the densities in its place, behind the joint coherence.
      num_codes: codes of training data that those densities are fitted to; 0 for none.
      num_scored: test observations behind the scores of subset posteriors; 0 for none.
      num_likelihood: test observations behind the log likelihoods.
      num_importance: K, importance samples for each of them.
      batch_size: observations sampled at once.
      inception: Inception-v3's FID weights (`python -m experiments.convert_inception`); with them the FID of the first modality is measured, from
        `num_observations` images against the whole test set.
      chains_only: run the long chains alone.
      chain_observations: test observations that the long chains run for.
      chain_draws: draws of each of the four long chains.
      chain_thinning: iterations per draw of the long chains.
    """

    workdir: pathlib.Path
    split: Literal["test", "validation"] = "test"
    seed: int = 0
    subsets: str = "all"
    num_observations: int = 200
    num_samples: int = 8
    num_prior: int = 10_000
    num_codes: int = 10_000
    num_scored: int = 40
    num_likelihood: int = 100
    num_importance: int = 1_000
    batch_size: int = 250
    inception: pathlib.Path | None = None
    chains_only: bool = False
    chain_observations: int = 100
    chain_draws: int = 500
    chain_thinning: int = 3


# With 20 iterations a chain R-hat is mostly noise (medians of 1.13 to 1.17 were seen): only chains far apart show.
SHORT_RHAT = 1.5
LONG_RHAT = 1.01
_LONG_CHAINS = 4
_RECORDED = ("split", "num_samples", "seed", "subsets")
FILES = {"test": "evaluation.json", "validation": "evaluation_validation.json"}


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax evaluate")
    experiment.check_counts(arguments, "num_observations", "num_samples", "num_prior", "num_likelihood", "num_importance")
    experiment.check_counts(arguments, "batch_size", "chain_observations", "chain_draws", "chain_thinning")
    experiment.check_counts(arguments, "num_codes", "num_scored", least=0)
    config = run_folder.load(arguments.workdir)
    with run_folder.lease(arguments.workdir):
        path = arguments.workdir / FILES["test" if arguments.chains_only else arguments.split]
        result = parts.known(path)
        if arguments.chains_only:
            chains = result.setdefault("hmc", {})
            for long in long_chains(arguments, config, chains.get("long_chains", {})):
                chains["long_chains"] = long
                files.write_json(path, result)  # a subset takes minutes: none is lost
        else:
            known, parts_path = result, path.with_suffix(".parts.json")
            result = evaluate(arguments, config, parts_path)
            _take_over(result, known)
            files.write_json(path, result)
            parts_path.unlink(missing_ok=True)
    tables.show(result)
    print(f"written: {path}")
    return 0


def _take_over(result: dict, known: Mapping[str, Any]) -> None:
    """Adds to an evaluation what an earlier one of the same weights has beside it: long chains, and the FID of the same split."""
    same = lambda part: part.get("weights") in (None, result["weights"])
    long = known.get("hmc", {}).get("long_chains")
    if same(known) and long is not None and same(long):
        result["hmc"]["long_chains"] = long
    if same(known) and "fid" in known and known.get("split", "test") == result["split"]:
        result.setdefault("fid", known["fid"])


def _asked(arguments: Arguments) -> dict:
    asked = dataclasses.asdict(arguments)
    return {name: value for name, value in asked.items() if name != "workdir" and not name.startswith("chain")}


def answers(found: Mapping[str, Any], arguments: Arguments) -> bool:
    """Returns whether what an `evaluation.json` holds is a whole evaluation of these settings; of an older one some are not known."""
    if "log_likelihood" not in found or (arguments.inception is not None and "fid" not in found):
        return False
    asked = {name: value for name, value in _asked(arguments).items() if name not in ("inception", "batch_size")}
    known = found.get("asked") or {"split": "test"} | {name: found[name] for name in _RECORDED if name in found}
    return all(asked[name] == value for name, value in known.items() if name in asked)


def evaluate(arguments: Arguments, config: experiment.Config, parts_path: pathlib.Path) -> dict:
    """Returns everything but the long chains; what is found is kept in a file of parts as it goes."""
    model, data = experiment.build(config)
    names = tuple(model.specs)
    chosen = subsets.choose(names, arguments.subsets)
    test = data[arguments.split].complete()
    _check_enough(arguments, test)
    asked = _asked(arguments)
    result: dict = {name: asked[name] for name in _RECORDED} | {"asked": {n: v for n, v in asked.items() if n != "inception"}}
    with writers.Progress() as progress:
        if left_out := len(data[arguments.split]) - len(test):
            progress.say(f"{left_out} of {left_out + len(test)} {arguments.split} examples lack a modality and are left out")
        run = _run(arguments, config, model, data, test, progress)
        result["weights"] = manifests.digest(run.params)
        found = parts.Parts(parts_path, asked | {"weights": result["weights"]} | _about_labels(test))
        if run.judges is not None:
            seen = {name: judged.classes == test.labels for name, judged in run.real.items()}
            result["classifier_accuracy"] = {name: float(right.mean()) for name, right in seen.items()}
        result["num_observations"] = len(run.test)
        if run.judges is not None:
            result |= found.get(
                "joint", lambda: measures.joint(run, data, num_prior=arguments.num_prior, num_codes=arguments.num_codes)
            )
        of_subset = functools.partial(
            measures.of_subset, run, num_samples=arguments.num_samples,
            summary=functools.partial(chain_summary, threshold=SHORT_RHAT),
        )  # fmt: skip
        result |= measures.conditional(run, found.by_subset([*chosen, names], of_subset, progress))
        result["hmc"]["rhat_threshold"] = SHORT_RHAT
        if arguments.num_scored:
            score = functools.partial(measures.score, run, num_observations=arguments.num_scored)
            by_subset = {s: found.get(f"score {subsets.label(s)}", functools.partial(score, s)) for s in chosen}
            result["subset_score"] = measures.scores(by_subset)
        result |= found.get(
            "likelihoods",
            lambda: measures.likelihoods(
                run, test, num_observations=arguments.num_likelihood, num_importance=arguments.num_importance
            ),
        )
    result["seconds"] = found.seconds
    return result


def _about_labels(test: source.Source) -> dict[str, str | None]:
    """Returns what tells classes from corrected ones; a summary of data knows none."""
    known = test.labels is not None
    return {"labels": hashlib.sha256(np.ascontiguousarray(test.labels, np.int64)).hexdigest() if known else None}


def _check_enough(arguments: Arguments, test: source.Source) -> None:
    """Raises a ValueError where there would be no standard errors."""
    counts = {name: getattr(arguments, name) for name in ("num_observations", "num_likelihood", "num_scored")}
    if len(test) < 2 or 1 in counts.values():
        raise ValueError(f"Expected at least 2 observations, got {counts} of {len(test)} complete {arguments.split} examples.")


def _run(
    arguments: Arguments,
    config: experiment.Config,
    model: base.Model,
    data: experiment.Splits,
    test: source.Source,
    progress: writers.Progress,
) -> measures.Run:
    """Returns what is measured, and what its judges see in the real examples `test`."""
    params = stages.load(model, arguments.workdir, data=data)
    seen = None
    if arguments.inception is not None:
        weights = inception.load(arguments.inception)
        first, spec = next(iter(test.specs.items()))
        if not (reconstruction.is_image(spec.shape) and spec.shape[-1] in (1, 3) and spec.support == (0.0, 1.0)):
            raise ValueError(f"Expected images in [0, 1] as the first modality for an FID, got {first!r}: {spec}.")
    judges, judge_params, real = None, {}, {}
    if test.labels is not None:
        judges, judge_params = classifier_cache.trained(config, data, progress)
        real = {name: classifiers.judged(judges, judge_params, name, x) for name, x in test.arrays.items()}
    if arguments.inception is not None:
        progress.update("Inception-v3", 0, 1, f"{len(test)} real images")
        seen = (weights, inception.features(weights, distributions.canonical(spec, test.arrays[first])))
    return measures.Run(
        model=model,
        params=params,
        test=test.take(arguments.num_observations),
        key=jax.random.key(arguments.seed),
        batch_size=arguments.batch_size,
        judges=judges,
        judge_params=judge_params,
        real=real,
        real_labels=test.labels,
        inception=seen,
        on_progress=progress.update,
    )


def long_chains(arguments: Arguments, config: experiment.Config, known: dict) -> Iterator[dict]:
    """Yields R-hat and ESS of four long chains for every subset that is sampled by HMC: all that is known after each of them.

    Args:
      arguments: of the script.
      config: of the run.
      known: what an earlier call yielded; its subsets are taken over where it was asked for the same.
    """
    sampler = getattr(config.model, "sampler", None)
    if sampler is None:
        raise ValueError(f"Expected a model that samples by HMC, got {type(config.model).__module__}.")
    long = dataclasses.replace(sampler, num_chains=_LONG_CHAINS, thinning=arguments.chain_thinning)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, sampler=long))
    model, data = experiment.build(config)
    params = stages.load(model, arguments.workdir, data=data)
    test = data["test"].complete().take(arguments.chain_observations)
    key = keys.stream(jax.random.key(arguments.seed), "long chains")
    asked = {
        "weights": manifests.digest(params),
        "num_chains": _LONG_CHAINS,
        "num_draws": arguments.chain_draws,
        "thinning": arguments.chain_thinning,
        "num_observations": len(test),
        "rhat_threshold": LONG_RHAT,
        "seed": arguments.seed,
    }
    before = {"weights": asked["weights"]} | known  # older ones do not tell
    same = all(before.get(name) == value for name, value in asked.items())
    done = dict(known["by_subset"]) if same else {}
    chained = [subset for subset in subsets.choose(tuple(model.specs), arguments.subsets) if len(subset) > 1]
    if not chained:
        raise ValueError(
            f"Expected a subset of two or more modalities, and not all of them, which chains sample: got none among "
            f"--subsets {arguments.subsets} of {len(model.specs)} modalities."
        )
    with writers.Progress() as progress:
        for number, subset in enumerate(chained):
            label = subsets.label(subset)
            progress.update("long chains", number, len(chained), label)
            if label not in done:
                draws = coherence.draw(
                    model, params, keys.stream(key, label), test, subset,
                    num_samples=_LONG_CHAINS * arguments.chain_draws, batch_size=min(arguments.batch_size, len(test)),
                )  # fmt: skip
                done[label] = chain_summary(draws.info, LONG_RHAT)
            shares = [summary["share_below"] for summary in done.values() if summary["share_below"] is not None]
            smallest, mean = (min(shares), float(np.mean(shares))) if shares else (None, None)
            yield asked | {"smallest_share_below": smallest, "share_below": mean, "by_subset": done}
        progress.update("long chains", len(chained), len(chained))


def chain_summary(info: types.Info, threshold: float) -> dict:
    """Returns what a table shows of chains, and the observations whose chains cannot be trusted."""
    info = types.Info(*(np.asarray(field) for field in info))
    unmixed = ~(info.rhat < threshold)
    told = not np.isnan(info.rhat).all()  # chains of a few draws tell nothing
    return {
        "acceptance": float(info.acceptance.mean()),
        "divergences": int(info.divergences.sum()),
        "rhat_median": float(np.nanmedian(info.rhat)) if told else None,
        "rhat_largest": float(np.nanmax(info.rhat)) if told else None,
        "share_below": float(1 - unmixed.mean()) if told else None,
        "ess_median": None if np.isnan(info.ess).all() else float(np.nanmedian(info.ess)),
        "improper": int(info.improper.sum()),
        "untrusted": {
            "rhat": np.flatnonzero(unmixed).tolist() if told else [],
            "improper": np.flatnonzero(info.improper).tolist(),
            "divergent": np.flatnonzero(info.divergences).tolist(),
        },
    }


if __name__ == "__main__":
    experiment.main(main)
