"""Measures a trained run: coherence, likelihoods, diversity, and whether the chains can be trusted.

    python -m experiments.evaluate --workdir runs/demo [--num-observations 500] [--chains-only] [..]

Writes `evaluation.json` into the run's folder and prints its tables. `--chains-only` runs the long chains behind
`hmc.long_chains` alone and adds them to the file.
"""

import dataclasses
import json
import pathlib
import time

import jax
import numpy as np
import tyro

from experiments import classifiers as classifier_cache
from experiments import experiment, tables
from jnf_jax import distributions, keys, subsets, types
from jnf_jax.data import source
from jnf_jax.metrics import classifiers, coherence, diversity
from jnf_jax.models import base
from jnf_jax.training import checkpoint, stages, writers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measures a trained run and writes evaluation.json into its folder.

    Attributes:
      workdir: folder of the run.
      seed: of all draws.
      num_observations: test observations behind coherence and diversity.
      num_samples: draws for each observation; the first one is judged for coherence, all of them for diversity.
      num_prior: draws of the prior behind the joint coherence.
      num_likelihood: test observations behind the log likelihoods.
      num_importance: K, importance samples for each of them.
      batch_size: observations sampled at once.
      chains_only: run the long chains alone.
      chain_observations: test observations that the long chains run for.
      chain_draws: draws of each of the four long chains.
      chain_thinning: iterations per draw of the long chains.
    """

    workdir: pathlib.Path
    seed: int = 0
    num_observations: int = 200
    num_samples: int = 8
    num_prior: int = 10_000
    num_likelihood: int = 100
    num_importance: int = 1_000
    batch_size: int = 250
    chains_only: bool = False
    chain_observations: int = 100
    chain_draws: int = 500
    chain_thinning: int = 3


_SHORT_RHAT = (
    1.5  # with 20 iterations a chain R-hat is mostly noise (medians of 1.13 to 1.17 were seen): only chains far apart show
)
_LONG_RHAT = 1.01
_LONG_CHAINS = 4


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="python -m experiments.evaluate")
    config = experiment.load(arguments.workdir)
    with experiment.lease(arguments.workdir):
        path = arguments.workdir / "evaluation.json"
        result = json.loads(path.read_text()) if path.exists() else {}
        if arguments.chains_only:
            result.setdefault("hmc", {})["long_chains"] = long_chains(arguments, config)
        else:
            long = result.get("hmc", {}).get("long_chains")
            result = evaluate(arguments, config)
            if long is not None:
                result["hmc"]["long_chains"] = long
        checkpoint.write_json(path, result)
    tables.show(result)
    print(f"written: {path}")
    return 0


def evaluate(arguments: Arguments, config: experiment.Config) -> dict:
    """Returns everything but the long chains."""
    begun = time.monotonic()
    model, data = experiment.build(config)
    params = stages.load(model, arguments.workdir)
    test = data["test"].take(arguments.num_observations)
    key = jax.random.key(arguments.seed)
    result: dict = {"num_observations": len(test), "num_samples": arguments.num_samples, "seed": arguments.seed}
    with writers.Progress() as progress:
        if test.labels is not None:
            judges, judge_params = classifier_cache.trained(config, data, progress)
            result["classifier_accuracy"] = {
                name: float((classifiers.predictions(judges, judge_params, name, x) == data["test"].labels).mean())
                for name, x in data["test"].arrays.items()
            }
            z = model.sample_prior(params, keys.stream(key, "prior"), num_samples=arguments.num_prior)
            result["joint_coherence"] = coherence.joint(
                coherence.decoded_classes(model, params, judges, judge_params, np.asarray(z))
            )
        else:
            judges = judge_params = None
        result |= _conditional(arguments, model, params, test, judges, judge_params, progress)
        result |= _likelihoods(arguments, model, params, data["test"], progress)
    result["seconds"] = round(time.monotonic() - begun, 1)
    return result


def long_chains(arguments: Arguments, config: experiment.Config) -> dict:
    """Returns R-hat and ESS of four long chains for every subset that is sampled by HMC."""
    sampler = getattr(config.model, "sampler", None)
    if sampler is None:
        raise ValueError(f"Expected a model that samples by HMC, got {type(config.model).__module__}.")
    long = dataclasses.replace(sampler, num_chains=_LONG_CHAINS, thinning=arguments.chain_thinning)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, sampler=long))
    model, data = experiment.build(config)
    params = stages.load(model, arguments.workdir)
    test = data["test"].take(arguments.chain_observations)
    key = keys.stream(jax.random.key(arguments.seed), "long chains")
    result: dict = {
        "num_chains": _LONG_CHAINS,
        "num_draws": arguments.chain_draws,
        "thinning": arguments.chain_thinning,
        "num_observations": len(test),
        "by_subset": {},
    }
    chained = [s for s in subsets.proper(tuple(model.specs)) if len(s) > 1]
    with writers.Progress() as progress:
        for done, subset in enumerate(chained):
            progress.update("long chains", done, len(chained), subsets.label(subset))
            draws = coherence.draw(
                model, params, keys.stream(key, subsets.label(subset)), test, subset,
                num_samples=_LONG_CHAINS * arguments.chain_draws, batch_size=min(arguments.batch_size, len(test)),
            )  # fmt: skip
            result["by_subset"][subsets.label(subset)] = _chain_summary(draws.info, _LONG_RHAT)
        progress.update("long chains", len(chained), len(chained))
    shares = [summary["share_below"] for summary in result["by_subset"].values()]
    return result | {"rhat_threshold": _LONG_RHAT, "smallest_share_below": min(shares), "share_below": float(np.mean(shares))}


def _conditional(arguments, model: base.Model, params, test: source.Source, judges, judge_params, progress) -> dict:
    """Coherence, diversity and chain diagnostics, from the same draws."""
    key = keys.stream(jax.random.key(arguments.seed), "posterior")
    names = tuple(model.specs)
    by_subset: dict[subsets.Subset, dict[str, float]] = {}
    varied: dict[str, dict[str, float]] = {}
    chains: dict[str, dict] = {}
    todo = [*subsets.proper(names), names]
    for done, subset in enumerate(todo):
        label = subsets.label(subset)
        progress.update("subsets", done, len(todo), label)
        draws = coherence.draw(
            model, params, keys.stream(key, label), test, subset,
            num_samples=arguments.num_samples, batch_size=min(arguments.batch_size, len(test)),
        )  # fmt: skip
        if 1 < len(subset) < len(names):
            chains[label] = _chain_summary(draws.info, _SHORT_RHAT)
        if judges is None:
            continue
        predicted = coherence.decoded_classes(model, params, judges, judge_params, draws.z[0])
        targets = subset if subset == names else tuple(n for n in names if n not in subset)
        by_subset[subset] = {name: float((predicted[name] == test.labels).mean()) for name in targets}
        if arguments.num_samples > 1 and subset != names:
            varied[label] = _diversity(model, params, draws.z, test, targets)
    progress.update("subsets", len(todo), len(todo))
    result: dict = {"hmc": {"by_subset": chains, "rhat_threshold": _SHORT_RHAT}}
    if judges is not None:
        result["reconstruction_coherence"] = by_subset.pop(names)
        result["coherence"] = {
            "by_size": {str(size): value for size, value in coherence.by_size(by_subset).items()},
            "by_subset": {subsets.label(subset): targets for subset, targets in by_subset.items()},
        }
        if varied:
            values = [value for targets in varied.values() for value in targets.values()]
            result["diversity"] = {"mean": float(np.mean(values)), "by_subset": varied}
    return result


def _diversity(model, params, z: np.ndarray, test: source.Source, targets, *, most: int = 100) -> dict[str, float]:
    images = coherence.as_data(model, model.decode(params, z[:, :most]))
    return {
        name: diversity.diversity(
            np.asarray(images[name]).swapaxes(0, 1),
            test.labels[:most],
            np.asarray(distributions.canonical(model.specs[name], test.arrays[name])),
            test.labels,
        )
        for name in targets
    }


def _likelihoods(arguments, model: base.Model, params, test: source.Source, progress) -> dict:
    key = keys.stream(jax.random.key(arguments.seed), "likelihood")
    part = test.take(arguments.num_likelihood)
    names = tuple(model.specs)
    elbo = [
        np.asarray(
            model.elbo(params, keys.stream(key, "elbo", start), {n: x[start : start + 500] for n, x in test.arrays.items()})
        )
        for start in range(0, len(test), 500)
    ]
    result = {"num_observations": len(part), "num_importance": arguments.num_importance}
    todo = [names, *((name,) for name in names)]
    for done, subset in enumerate(todo):
        label = "all" if subset == names else subsets.label(subset)
        progress.update("log likelihood", done, len(todo), label)
        observed = {name: part.arrays[name] for name in subset}
        value = np.asarray(
            model.log_likelihood(params, keys.stream(key, label), observed, num_importance=arguments.num_importance)
        )
        result[label] = float(value.mean())
        result[f"{label}_standard_error"] = float(value.std(ddof=1) / np.sqrt(len(value)))
    progress.update("log likelihood", len(todo), len(todo))
    return {"elbo": float(np.concatenate(elbo).mean()), "log_likelihood": result}


def _chain_summary(info: types.Info, threshold: float) -> dict:
    """Returns what a table shows of chains, and the observations whose chains cannot be trusted."""
    info = types.Info(*(np.asarray(field) for field in info))
    unmixed = ~(info.rhat < threshold)
    return {
        "acceptance": float(info.acceptance.mean()),
        "divergences": int(info.divergences.sum()),
        "rhat_median": float(np.nanmedian(info.rhat)),
        "rhat_largest": float(np.nanmax(info.rhat)),
        "share_below": float(1 - unmixed.mean()),
        "ess_median": float(np.nanmedian(info.ess)),
        "improper": int(info.improper.sum()),
        "untrusted": {
            "rhat": np.flatnonzero(unmixed).tolist(),
            "improper": np.flatnonzero(info.improper).tolist(),
            "divergent": np.flatnonzero(info.divergences).tolist(),
        },
    }


if __name__ == "__main__":
    experiment.main(main)
