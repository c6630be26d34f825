"""One classifier a modality, the judges of coherence; trained on real training data, on nothing generated."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from jnf_jax import configs, distributions, keys, types
from jnf_jax import specs as specs_lib
from jnf_jax.data import source
from jnf_jax.models import base
from jnf_jax.networks import base as networks_base
from jnf_jax.networks import conv, mlp, resnet
from jnf_jax.training import fit

_ENTRY = "classifiers"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """The classifiers.

    Attributes:
      network: its encoder is the classifier's trunk. Where it is convolutional, modalities that are no images have an `mlp.Config()`.
      networks: exceptions to `network`, by modality.
      seed: of initialisation and training.
      training: how they are trained, all at once.
    """

    network: configs.Component = conv.Config(channels=(16, 32), hidden=128)
    networks: Mapping[str, configs.Component] = dataclasses.field(default_factory=dict)
    seed: int = 0
    training: fit.Config = fit.Config(num_steps=800, batch_size=128, learning_rate=2e-3)


@dataclasses.dataclass(frozen=True)
class Classifiers:
    """Pure functions of the classifiers of all modalities.

    Attributes:
      init: (key) -> params.
      judge: (params, modality, x `[B, *shape]`) -> (logits `[B, num_classes]`, features `[B, F]` before the last layer; none, F = 0,
        of a rule).
      stage: their training, on batches {"data": modality -> x, "labels": `[B]`}; None where there is nothing to train.
    """

    init: Any
    judge: Any
    stage: base.Stage | None


class _Classifier(nn.Module):
    trunk: nn.Module
    num_classes: int

    @nn.compact
    def __call__(self, x):
        features = self.trunk(x)
        return nn.Dense(self.num_classes)(features), features


def build(config: Config, specs: specs_lib.Specs, num_classes: int) -> Classifiers:
    """Returns the classifiers of `num_classes` classes."""
    settings = {name: config.networks.get(name, _default(config, spec)) for name, spec in specs.items()}
    modules = {name: _Classifier(configs.build(settings[name], spec).encoder, num_classes) for name, spec in specs.items()}
    kinds = specs_lib.kinds(specs, settings)

    def init(key):
        shapes = {name: (1, *spec.input_shape) for name, spec in specs.items()}
        return {_ENTRY: {n: networks_base.init(m, keys.stream(key, n), shapes[n]) for n, m in modules.items()}}

    @functools.partial(jax.jit, static_argnums=0)
    def judge_as(kind, params, x):
        return modules[kind].apply(params, distributions.network_input(specs[kind], x))

    def judge(params, name, x):
        return judge_as(kinds[name], params[_ENTRY][name], x)

    def loss(params, key, batch):
        del key
        losses = {
            name: optax.softmax_cross_entropy_with_integer_labels(judge(params, name, x)[0], batch["labels"]).mean()
            for name, x in batch["data"].items()
        }
        return sum(losses.values()), losses

    stage = base.Stage(name=_ENTRY, trainable=(_ENTRY,), loss=loss)
    return Classifiers(init=init, judge=judge, stage=stage)


def _default(config: Config, spec: specs_lib.ModalitySpec) -> configs.Component:
    convolutional = isinstance(config.network, (conv.Config, resnet.Config))
    return mlp.Config() if convolutional and 3 not in (len(spec.shape), len(spec.input_shape)) else config.network


def as_batch(data: source.Source) -> dict[str, Any]:
    """Returns the complete examples of a labelled source as the training stage takes them.

    Raises:
      ValueError: if it has no labels.
    """
    if data.labels is None:
        raise ValueError("Expected a labelled data set for the classifiers, got one without labels.")
    data = data.complete()
    return {"data": dict(data.arrays), "labels": np.asarray(data.labels)}


class Judged(NamedTuple):
    """What a classifier sees in examples of its modality."""

    classes: np.ndarray  # [N]; -1 where its output is not finite
    features: np.ndarray  # [N, F]


def judged(classifiers: Classifiers, params: types.Params, name: str, x: Any, *, batch_size: int = 500) -> Judged:
    """Returns the predicted class and the features of each example `[N, *shape]`, in batches of one shape."""
    num = len(x)
    parts = []
    for start in range(0, num, batch_size):
        rows = np.arange(start, start + min(batch_size, num)) % num
        logits, features = classifiers.judge(params, name, x[rows])
        logits = np.asarray(logits)
        classes = np.where(np.isfinite(logits).all(-1), logits.argmax(-1), -1)
        parts.append((classes, np.asarray(features)))
    return Judged(*(np.concatenate(part)[:num] for part in zip(*parts, strict=True)))
