"""The judges of a data set: its own rule where it has one, else classifiers trained once and found again by what they depend on."""

import dataclasses
import fcntl
import hashlib
import json
import sys
from collections.abc import Mapping

import jax
import numpy as np

from experiments import experiment
from jnf_jax import cache, configs, distributions, keys, types
from jnf_jax.data import missing, source
from jnf_jax.metrics import classifiers
from jnf_jax.training import checkpoint, fit, sharding, writers

_READ_AT_ONCE = 1_000  # examples, of data that lie in files


def trained(
    config: experiment.Config, data: Mapping[str, source.Source], progress: writers.Progress
) -> tuple[classifiers.Classifiers, types.Params]:
    """Returns the classifiers and their parameters, from the cache where the same ones were trained before.

    A data set whose module has `classify` (canonical images `[N, *shape]` -> classes `[N]`) is judged by that rule. Where modalities were
    taken away at random (`data.missing`), the judges are those of the complete data.

    Raises:
      ValueError: if the labels leave out most of the numbers below the largest.
    """
    if isinstance(config.data, missing.Config):
        config = dataclasses.replace(config, data=config.data.data)
        data = experiment.Splits(config.data)
    num_classes = _num_classes(data)
    if (rule := getattr(sys.modules[type(config.data).__module__], "classify", None)) is not None:
        specs = data["test"].specs

        def decide(params, name, x):
            return np.eye(num_classes)[rule(distributions.canonical(specs[name], x))], np.zeros((len(x), 0))

        return classifiers.Classifiers(init=lambda key: {}, judge=decide, stage=None), {}
    judges = classifiers.build(config.classifiers, data["test"].specs, num_classes)
    key = jax.random.key(config.classifiers.seed)
    params = judges.init(keys.stream(key, "init"))
    seen = {
        name: (configs.to_json(spec.likelihood), spec.support, spec.num_categories) for name, spec in data["test"].specs.items()
    }
    about = [list(seen.items()), configs.to_json(config.classifiers)]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for split in ("train", "validation"):
        masks = data[split].masks or {}
        for x in (*data[split].arrays.values(), data[split].labels, *(masks[name] for name in sorted(masks))):
            for start in range(0, len(x), _READ_AT_ONCE):
                digest.update(np.ascontiguousarray(x[start : start + _READ_AT_ONCE]))
    folder = cache.directory() / "classifiers" / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # of several evaluations one trains, and the others wait for it
        kept = checkpoint.Directory(folder, policy=checkpoint.Policy(keep=1))
        try:
            if (found := kept.latest(params)) is not None:
                return judges, found
        except ValueError as error:  # a cache is there to be thrown away
            progress.say(f"training the classifiers anew: {error}")
        batch = classifiers.as_batch(data["train"])
        training = config.classifiers.training
        training = dataclasses.replace(training, batch_size=min(training.batch_size, len(batch["labels"])))
        params, _ = fit.fit(
            judges.stage,
            params,
            keys.stream(key, "training"),
            batch,
            classifiers.as_batch(data["validation"]),
            config=training,
            mesh=sharding.make_mesh(1),  # judges do not depend on the number of devices
            on_report=lambda report: progress.update("classifiers", report.step, report.num_steps, f"loss {report.loss:.4g}"),
        )
        try:
            kept.save(params, step=training.num_steps)
            kept.wait()
        except ValueError as error:
            progress.say(f"the classifiers were not kept: {error}")
    return judges, params


def _num_classes(data: Mapping[str, source.Source]) -> int:
    if unlabelled := [split for split in source.SPLITS if data[split].labels is None]:
        raise ValueError(
            f"Expected a labelled data set for the classifiers, got one without labels in {', '.join(unlabelled)}."
        )
    found = np.unique(np.concatenate([data[split].labels for split in source.SPLITS]))
    num = 1 + int(found.max())
    if num > max(10 * len(found), 1_000):
        raise ValueError(f"Expected labels numbered 0, 1, 2 and so on, got {len(found)} different ones up to {num - 1}.")
    return num
