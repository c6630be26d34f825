"""What training needs of a model, its data and its settings, checked before anything is compiled or written."""

import itertools
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from jnf_jax import specs as specs_lib
from jnf_jax.data import source
from jnf_jax.models import base
from jnf_jax.training import fit


def check(
    model: base.Model,
    data: Mapping[str, source.Source],
    settings: Mapping[str, fit.Config],
    *,
    mesh: Mesh | None = None,
) -> None:
    """Checks, before anything is compiled or written, that a model can be trained on these data by these settings.

    Args:
      model: the model.
      data: with the splits `train` and `validation`.
      settings: stage -> how it is trained.
      mesh: devices; all of them where None.

    Raises:
      ValueError: where one of these is true.
        - A split is missing, or the data's specs are not the model's.
        - A stage has no settings, or settings have no stage.
        - Examples lack modalities and a stage does not take them, or there are fewer than it needs, or too few pairs.
        - A batch is larger than the data, does not split over the devices, or no loss takes one of that size.
        - The networks do not fit the data.
    """
    for what, value in {"data": data, "settings": settings}.items():
        if not isinstance(value, Mapping):
            raise ValueError(f"Expected {what} as a mapping, by split or by stage, got {type(value).__name__}.")
    if missing := [split for split in ("train", "validation") if split not in data]:
        raise ValueError(f"Expected data with the splits 'train' and 'validation', got none called {missing[0]!r}.")
    for split in ("train", "validation"):
        _check_specs(model, data[split].specs)
    names = [stage.name for stage in model.stages if stage.loss is not None]
    if set(settings) != set(names):
        raise ValueError(f"Expected settings for the stages {names}, got {sorted(settings)}.")
    for config in settings.values():
        fit.check_batch(len(data["train"]), config.batch_size, mesh)
    key = jax.random.key(0)
    params = jax.eval_shape(model.init, key)
    lacking = {n: int((~m).sum()) for split in ("train", "validation") for n, m in (data[split].masks or {}).items()}
    for stage in model.stages:
        if lacking and not stage.incomplete:
            without = ", ".join(f"{number} without {name!r}" for name, number in lacking.items())
            raise ValueError(
                f"Expected examples with every modality for stage {stage.name!r}, got {without}; "
                "a model with a setting `incomplete` takes them where it is on."
            )
        if len(data["train"]) < stage.least_examples:
            raise ValueError(
                f"Expected at least {stage.least_examples} training examples for stage {stage.name!r}, got {len(data['train'])}."
            )
        if lacking and stage.least_pairs:
            _check_pairs(stage, data, settings[stage.name].batch_size)
        if stage.begin is not None:
            params = jax.eval_shape(stage.begin, params)
        if stage.loss is None:
            continue
        sizes = {settings[stage.name].batch_size}
        if stage.whole_batches:  # a loss that is a mean over examples takes a validation's last, smaller batch as well
            sizes |= {min(len(data["validation"]), *sizes)}
        for size in sizes:
            batch = jax.tree.map(lambda x, n=size: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), data["train"].batch())
            if stage.prepare is not None:
                batch = jax.eval_shape(stage.prepare, params, batch)
            jax.eval_shape(stage.loss, params, key, batch)


def _check_pairs(stage: base.Stage, data: Mapping[str, source.Source], batch_size: int) -> None:
    """Raises a ValueError where a batch has too few examples of two modalities, on average."""
    for split in ("train", "validation"):
        size = min(batch_size, len(data[split]))
        for pair in itertools.combinations(data[split].specs, 2):
            num = data[split].having(pair).mean() * size
            if num < stage.least_pairs:
                raise ValueError(
                    f"Expected at least {stage.least_pairs} examples in a {split} batch of {size} that have both {pair[0]!r} and "
                    f"{pair[1]!r}, for stage {stage.name!r}, got {num:.3g}."
                )


def _check_specs(model: base.Model, found: specs_lib.Specs) -> None:
    """Raises a ValueError where data have other modalities than the model, or another likelihood or range of values in one."""
    if set(found) != set(model.specs):
        raise ValueError(f"Expected data of the model's modalities {list(model.specs)}, got {list(found)}.")
    for name, spec in model.specs.items():
        for field, value in spec.law.items():
            if value != (other := found[name].law[field]):
                raise ValueError(
                    f"Expected data of the model's specs, with {field}={value!r} for modality {name!r}, got {field}={other!r}."
                )
