"""Trains every stage of every model for 50 steps, and draws and scores, on the devices of this process: `layouts.py OUTPUT MESH [NUMBER ..]`, the numbers
those of some models.

Writes the parameters and losses, float64, into an .npz file, for `test_layouts.py` to compare.
"""

import dataclasses
import sys

import jax
import numpy as np
import test_models

from jnf_jax import configs
from jnf_jax.models import jnf
from jnf_jax.projectors import contrastive, dcca
from jnf_jax.training import fit, sharded, sharding

MODELS = [*test_models.MODELS]
MODELS += [  # losses of the whole batch
    dataclasses.replace(test_models.small(jnf), projector=projector, projected_hidden=(8,))
    for projector in (
        contrastive.Config(dim=2),
        dcca.Config(dim=2),
    )
]
SETTINGS = fit.Config(num_steps=50, batch_size=32, learning_rate=1e-3, steps_per_call=25, calls_per_validation=1)


def data(num):
    rng = np.random.default_rng(num)
    return {
        "image": rng.integers(0, 256, (num, 4, 4, 1)).astype(np.uint8),
        "vector": rng.normal(size=(num, 3)),
        "bits": rng.integers(0, 2, (num, 5)),
        "word": rng.integers(0, 3, (num, 2)),
    }


def results(mesh, chosen):
    sharding._SMALL = 1  # else nothing here is large enough to be split
    for number in chosen or range(len(MODELS)):
        config = MODELS[number]
        model = configs.build(config, test_models.MODALITIES)
        label = f"{number} {test_models.label(config)}"
        params = jax.jit(model.init)(jax.random.key(0))
        for stage in model.stages:
            if stage.loss is None:
                continue
            train, validation = (fit.prepare(stage, params, data(n), batch_size=32) for n in (96, 32))
            reports = []
            params, _ = fit.fit(
                stage, params, jax.random.key(1), train, validation, config=SETTINGS, mesh=mesh, on_report=reports.append
            )
            yield f"{label} {stage.name} losses", np.asarray([(r.loss, r.validation_loss) for r in reports])
            leaves = [np.ravel(leaf) for leaf in jax.tree.leaves({n: params[n] for n in stage.trainable})]
            yield f"{label} {stage.name} parameters", np.concatenate(leaves)
        many = sharded.over(model, mesh, chunk=8)
        observed = data(20)
        yield f"{label} elbo", many.elbo(params, jax.random.key(2), observed)
        for names in (["vector"], ["vector", "bits"], list(model.specs)):
            part = {name: observed[name] for name in names}
            z, _ = many.sample_posterior(params, jax.random.key(3), part, num_samples=200)
            leaves = jax.tree.leaves(z)
            yield f"{label} {len(names)} mean of draws", np.concatenate([leaf.mean(0) for leaf in leaves], -1)
            yield f"{label} {len(names)} deviation of draws", np.concatenate([leaf.std(0) for leaf in leaves], -1)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    output, layout, *numbers = sys.argv[1:]
    np.savez(
        output,
        **{
            name: np.asarray(value)
            for name, value in results(sharding.mesh_of(sharding.parse(layout)), [int(number) for number in numbers])
        },
    )
