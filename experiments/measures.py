"""The parts of an evaluation: each takes a trained run and returns what goes into `evaluation.json`."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jnf_jax import distributions, keys, subsets, types
from jnf_jax.data import source
from jnf_jax.marginals import mixture
from jnf_jax.metrics import classifiers as classifiers_lib
from jnf_jax.metrics import codes as codes_lib
from jnf_jax.metrics import coherence, diversity, frechet, inception, latents, prediction, reconstruction, subset_score
from jnf_jax.models import base

_MOST_FOR_DIVERSITY = 100


@dataclasses.dataclass(frozen=True)
class Run:
    """What is measured.

    Attributes:
      model: the model.
      params: its parameters.
      test: the test observations that posteriors are drawn for.
      key: of all draws.
      batch_size: observations sampled at once.
      judges: the classifiers, None where the data have no labels.
      judge_params: their parameters.
      real: modality -> what the classifiers see in the whole test set.
      real_labels: the classes of the whole test set, None where it has none.
      inception: Inception-v3's weights and what it sees of the first modality in the whole test set, `[N, 2048]`; None where no FID is
        asked for.
      on_progress: called with (task, done, total, note).
    """

    model: base.Model
    params: types.Params
    test: source.Source
    key: types.Array
    batch_size: int
    judges: classifiers_lib.Classifiers | None
    judge_params: types.Params
    real: Mapping[str, classifiers_lib.Judged]
    real_labels: np.ndarray | None
    inception: tuple[inception.Weights, np.ndarray] | None
    on_progress: Callable[[str, int, int, str], None]

    def draw(self, subset: subsets.Subset, stream: str, data: source.Source, num_samples: int) -> coherence.Draws:
        """Returns draws of a subset's posterior for all of `data`."""
        key = keys.stream(keys.stream(self.key, stream), subsets.label(subset))
        size = min(self.batch_size, len(data))
        return coherence.draw(self.model, self.params, key, data, subset, num_samples=num_samples, batch_size=size)

    def judge(self, z: Any) -> dict[str, classifiers_lib.Judged]:
        """Returns what the classifiers see in what z `[N, D]` decodes to."""
        return coherence.judge_decoded(self.model, self.params, self.judges, self.judge_params, z)


def joint(run: Run, data: Mapping[str, source.Source], *, num_prior: int, num_codes: int) -> dict[str, Any]:
    """Joint coherence of `sample_prior`, and by density: the prior p(z), and one fitted to the codes of training data.

    A model with a marginal of its own draws from that, named by its module; for any other a mixture is fitted here.
    """
    coherent = lambda z: coherence.joint(coherence.classes_of(run.judge(z)))
    key = keys.stream(run.key, "prior")
    draws = run.model.sample_prior(run.params, key, num_samples=num_prior)
    own = coherent(draws)
    if run.params.get("marginal"):
        prior = jax.random.normal(key, (num_prior, run.model.latent_dim))
        marginal = type(run.model.config.marginal).__module__.rpartition(".")[2]
        return {"joint_coherence": own, "joint_coherence_by_density": {"prior": coherent(prior), marginal: own}}
    by_density = {"prior": own}
    enough = num_codes > 1 and all(data[split].having(run.model.specs).sum() > 1 for split in ("train", "validation"))
    if enough:
        run.on_progress("mixture of codes", 0, 1, "")
        names = tuple(run.model.specs)
        found, held_out = (
            codes_lib.as_array(
                codes_lib.take(run.draw(names, f"codes {split}", data[split].complete().take(num_codes), 1).z, 0)
            )
            for split in ("train", "validation")
        )
        numbers = tuple(min(num, len(found)) for num in mixture.Config.num_components)
        density = mixture.build(mixture.Config(num_components=tuple(dict.fromkeys(numbers))), found.shape[1])
        fitted = np.asarray(density.sample(density.fit(0, found, held_out), key, num_samples=num_prior))
        by_density["mixture"] = coherent(codes_lib.from_array(fitted, draws))
    return {"joint_coherence": own, "joint_coherence_by_density": by_density}


def of_subset(run: Run, subset: subsets.Subset, *, num_samples: int, summary: Callable[[types.Info], dict]) -> dict[str, Any]:
    """Coherence, Fréchet distances, diversity, or reconstructions and clusters, and the chains' diagnostics, all from the same draws."""
    return of_draws(run, subset, run.draw(subset, "posterior", run.test, num_samples), summary=summary)


def of_draws(
    run: Run, subset: subsets.Subset, draws: coherence.Draws, *, summary: Callable[[types.Info], dict]
) -> dict[str, Any]:
    """Returns what `of_subset` finds, of draws that were made before."""
    names, test = tuple(run.model.specs), run.test
    found: dict[str, Any] = {}
    first = codes_lib.take(draws.z, 0)
    exact = not np.any(draws.info.step_size) and not np.any(draws.info.improper)
    if 1 < len(subset) < len(names) and not exact:
        found["chains"] = summary(draws.info)
    if subset == names:
        found["reconstruction"] = reconstructions(run, first)
    else:
        found["prediction"] = _predictions(run, subset, draws.z)
    if run.inception is not None and names[0] not in subset:
        found["fid"] = {names[0]: _inception_distance(run, names[0], first)}
    if run.judges is None:
        return found
    judged = run.judge(first)
    found["coherence"] = coherence.conditional(coherence.classes_of(judged), test.labels, () if subset == names else subset)
    if subset == names:
        return found | {"cluster_accuracy": latents.cluster_accuracy(codes_lib.as_array(first), test.labels)}
    targets = tuple(name for name in names if name not in subset)
    found["frechet"] = {name: d for name in targets if (d := _distances(run, name, judged[name]))}
    if codes_lib.length(draws.z) > 1:
        found["diversity"] = _diversity(run, draws.z, targets)
    return found


def score(run: Run, subset: subsets.Subset, *, num_observations: int, num_codes: int = 8) -> list[float]:
    """Returns the mean of log q(z* | x_S) over codes z* ~ q(z | X), in nats, for each of the first test observations."""
    key, test = keys.stream(run.key, "score"), run.test.take(num_observations)
    codes = subset_score.draw_codes(run.model, run.params, key, dict(test.arrays), num_codes=num_codes)
    observed = {name: test.arrays[name] for name in subset}
    run.on_progress("score", 0, 1, subsets.label(subset))
    found = subset_score.score(run.model, run.params, keys.stream(key, subsets.label(subset)), observed, codes)
    return np.round(found.values, 4).tolist()


def scores(by_subset: Mapping[subsets.Subset, list[float]]) -> dict[str, Any]:
    """Returns mean and standard error over observations, by size of the subset and by subset."""
    sizes = sorted({len(subset) for subset in by_subset})
    of_size = {n: np.mean([v for subset, v in by_subset.items() if len(subset) == n], axis=0) for n in sizes}
    return {
        "num_observations": len(next(iter(by_subset.values()))),
        "by_size": {str(size): with_error(values) for size, values in of_size.items()},
        "by_subset": {subsets.label(subset): with_error(values) for subset, values in by_subset.items()},
    }


def with_error(values: Any) -> dict[str, float]:
    """Returns mean and standard error of values `[B]`."""
    values = np.asarray(values)
    return {"mean": float(values.mean()), "standard_error": float(values.std(ddof=1) / np.sqrt(len(values)))}


def conditional(run: Run, by_subset: Mapping[subsets.Subset, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what `of_subset` found for every subset as an evaluation holds it: by what is measured, sizes averaged."""
    of = lambda what: {subset: found[what] for subset, found in by_subset.items() if what in found}
    labelled = lambda what: {subsets.label(subset): found for subset, found in of(what).items()}
    names = tuple(run.model.specs)
    result: dict[str, Any] = {"hmc": {"by_subset": labelled("chains")}, "reconstruction": by_subset[names]["reconstruction"]}
    if predicted := {label: targets for label, targets in labelled("prediction").items() if targets}:
        kinds = {name: prediction.kind(run.model.specs[name]) for name in names if any(name in t for t in predicted.values())}
        result["prediction"] = {"kinds": kinds, "by_subset": predicted}
    if run.inception is not None:
        weights, real = run.inception
        counts = {"num_generated": len(run.test), "num_real": len(real), "weights_sha256": weights.sha256}
        result["fid"] = {"modality": names[0]} | counts | _by_size_and_subset(of("fid"))
    if run.judges is None:
        return result
    coherent = of("coherence")
    result["cluster_accuracy"] = by_subset[names]["cluster_accuracy"]
    result["reconstruction_coherence"] = coherent.pop(names)
    result["coherence"] = _by_size_and_subset(coherent)
    if any((distances := of("frechet")).values()):
        result["frechet"] = _frechet(run, distances)
    varied = labelled("diversity")
    if values := [value for targets in varied.values() for value in targets.values()]:
        result["diversity"] = {"mean": float(np.mean(values)), "by_subset": varied}
    return result


def _predictions(run: Run, subset: subsets.Subset, z: Any) -> dict[str, float]:
    """Returns the quality of the predictions of vectors and categories outside a subset; pictures are judged by what they show."""
    specs = run.model.specs
    targets = [n for n, spec in specs.items() if n not in subset and len(spec.shape) == 1 and spec.layout == "grid"]
    if not targets:
        return {}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in targets}
    for start in range(0, len(run.test), run.batch_size):
        decoded = run.model.decode(run.params, codes_lib.take(z, np.s_[:, start : start + run.batch_size]))
        for name in targets:
            parts[name].append(np.asarray(prediction.expected(specs[name], decoded[name])))
    found = {n: prediction.quality(specs[n], np.concatenate(parts[n]), run.test.arrays[n]) for n in targets}
    return {name: value for name, value in found.items() if not np.isnan(value)}  # a modality may not vary


def _inception_distance(run: Run, name: str, z: Any) -> float:
    weights, real = run.inception
    return frechet.distance(inception.features(weights, _decoded(run, z)[name].clip(0, 1)), real)


def _decoded(run: Run, z: Any) -> dict[str, np.ndarray]:
    """Returns modality -> the data that z `[N, D]` stand for, decoded in batches."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in run.model.specs}
    for start in range(0, codes_lib.length(z), run.batch_size):
        part = codes_lib.take(z, np.s_[start : start + run.batch_size])
        means = coherence.as_data(run.model, run.model.decode(run.params, part))
        for name, x in means.items():
            parts[name].append(np.asarray(x))
    return {name: np.concatenate(x) for name, x in parts.items()}


def reconstructions(run: Run, z: Any) -> dict[str, dict[str, float]]:
    """Mean squared error, and structural similarity of images, of every modality decoded from a draw given all of them.

    Counts are compared as encoders see them, or the largest of them would be all that is seen.
    """
    decoded = _decoded(run, z)
    result = {}
    for name, spec in run.model.specs.items():
        if spec.values == "categories":
            continue
        made, real = (np.asarray(distributions.network_input(spec, x)) for x in (decoded[name], run.test.arrays[name]))
        result[name] = {"mean_squared_error": float(reconstruction.mean_squared_error(made, real).mean())}
        if reconstruction.is_image(spec.shape) and spec.support is not None:
            value_range = spec.support[1] - spec.support[0]
            similarity = reconstruction.structural_similarity(made, real, value_range=value_range)
            result[name]["structural_similarity"] = float(similarity.mean())
    return result


def likelihoods(run: Run, data: source.Source, *, num_observations: int, num_importance: int) -> dict[str, Any]:
    """Importance-sampled log likelihoods: joint, of each modality, and of all others given one; and the joint ELBO."""
    key, names = keys.stream(run.key, "likelihood"), tuple(run.model.specs)
    part = data.take(num_observations)
    elbo = [
        np.asarray(
            run.model.elbo(
                run.params, keys.stream(key, "elbo", start), {n: x[start : start + 500] for n, x in data.arrays.items()}
            )
        )
        for start in range(0, len(data), 500)
    ]
    todo = [names, *((name,) for name in names)]
    values: dict[str, np.ndarray] = {}
    for done, subset in enumerate(todo):
        label = "all" if subset == names else subsets.label(subset)
        run.on_progress("log likelihood", done, len(todo), label)
        observed = {name: part.arrays[name] for name in subset}
        estimate = functools.partial(run.model.log_likelihood, num_importance=num_importance)
        values[label] = np.asarray(estimate(run.params, keys.stream(key, label), observed))
    run.on_progress("log likelihood", len(todo), len(todo), "")
    values |= {f"rest given {name}": values["all"] - values[name] for name in names}
    result: dict[str, Any] = {"num_observations": len(part), "num_importance": num_importance}
    for label, value in values.items():
        result[label] = float(value.mean())
        result[f"{label}_standard_error"] = float(value.std(ddof=1) / np.sqrt(len(value)))
    return {"elbo": float(np.concatenate(elbo).mean()), "log_likelihood": result}


def _by_size_and_subset(by_subset: Mapping[subsets.Subset, Mapping[str, float]]) -> dict[str, Any]:
    return {
        "by_size": {str(size): value for size, value in coherence.by_size(by_subset).items()},
        "by_subset": {subsets.label(subset): targets for subset, targets in by_subset.items()},
    }


def _distances(run: Run, name: str, judged: classifiers_lib.Judged) -> dict[str, float]:
    """Returns the distances of what was generated for one target; nothing where its judge has no features."""
    real = run.real[name].features
    if not real.shape[1]:
        return {}
    found = {"distance": frechet.distance(judged.features, real)}
    num, dim = judged.features.shape
    if num // 4 > dim:  # with fewer, covariances are singular and the bias is not c / N
        found["extrapolated"] = frechet.extrapolated(judged.features, real)
    if np.unique(run.test.labels, return_counts=True)[1].min() > dim:
        by_class = frechet.by_class(judged.features, run.test.labels, real, run.real_labels)
        found["by_class"] = float(np.mean(list(by_class.values())))
    return found


def _frechet(run: Run, distances: Mapping[subsets.Subset, Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    kinds = sorted({kind for targets in distances.values() for found in targets.values() for kind in found})
    result: dict[str, Any] = {
        "features": "the modality's own classifier, before its last layer; not Inception-v3's",
        "num_generated": len(run.test),
        "num_real": len(next(iter(run.real.values())).features),
    }
    for kind in kinds:
        # which kinds there are depends on the width of a modality's features
        by_subset = {subset: {n: d[kind] for n, d in targets.items() if kind in d} for subset, targets in distances.items()}
        result[kind] = _by_size_and_subset({subset: targets for subset, targets in by_subset.items() if targets})
    return result


def _diversity(run: Run, z: Any, targets) -> dict[str, float]:
    few = codes_lib.take(z, np.s_[:, :_MOST_FOR_DIVERSITY])
    images = coherence.as_data(run.model, run.model.decode(run.params, few))
    # categories have no distances but those of one-hot vectors
    seen = lambda name, x: np.asarray(distributions.network_input(run.model.specs[name], x))
    found = {
        name: diversity.diversity(
            seen(name, images[name]).swapaxes(0, 1),
            run.test.labels[:_MOST_FOR_DIVERSITY],
            seen(name, run.test.arrays[name]),
            run.test.labels,
        )
        for name in targets
    }
    return {name: value for name, value in found.items() if not np.isnan(value)}  # a class may fix a modality
