import jax
import jax.numpy as jnp
import test_stages

from experiments import experiment, inspect
from jnf_jax.training import checkpoint, stages

CONFIG = experiment.find("linear_gaussian/jnf")


def test_parameters_add_up():
    params = {"joint": {"head": {"w": jnp.ones((2, 3))}, "trunk": {}}, "scale": jnp.ones(4)}
    rows = inspect.parameters(params)
    assert [(row["module"], row["parameters"]) for row in rows] == [
        ("joint.head", 6),
        ("joint.trunk", 0),
        ("scale", 4),
        ("all", 10),
    ]
    assert rows[-1]["bytes"] == sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def test_the_work_of_a_step_is_that_of_its_matrix_product():
    """One product of a batch with a matrix, forwards and for the gradient."""
    import dataclasses

    from jnf_jax.models import base
    from jnf_jax.training import fit

    loss = lambda params, key, batch: ((batch["x"] @ params["w"]).sum() ** 2, {})
    stage = base.Stage(name="w", trainable=("w",), loss=loss)
    config = dataclasses.replace(CONFIG, training={"w": fit.Config(batch_size=100, num_steps=7, steps_per_call=5)})
    model = dataclasses.replace(test_stages.regression(), stages=(stage,))
    params = {"w": jax.ShapeDtypeStruct((50, 40), jnp.float64)}
    data = test_stages.splits({"x": test_stages.specs.ModalitySpec(shape=(50,))}, train=200, validation=10)
    row = inspect.costs(model, params, data, config, stage)
    product = 2 * 100 * 50 * 40
    assert product < float(row["FLOPs"].replace(",", "")) < 3 * product
    assert (row["stage"], row["trained"], row["steps"]) == ("w", "2,000", 10)


def test_checkpoints_and_their_health_are_shown(tmp_path):
    model, data = test_stages.regression(), test_stages.splits(test_stages.SPECS, train=50, validation=20)
    stages.train(model, jax.random.key(0), data, settings={"slope": test_stages.SETTINGS}, folder=tmp_path)
    (tmp_path / "checkpoints" / "slope" / "40.json").write_text("{")
    rows = inspect.checkpoints(model, tmp_path)
    assert [(row["kind"], row["step"]) for row in rows] == [("finished", 40), ("state", 30), ("state", 40)]
    assert [row["health"] == "whole" for row in rows] == [True, True, False]
    assert "holds no JSON" in rows[-1]["health"]
    assert checkpoint.Directory(tmp_path / "nothing").health() == []


def test_time_is_added_up_by_stage():
    rows = [{"stage": "a", "step": 1, "seconds": 2.0}, {"stage": "a", "step": 2, "seconds": 0.5}, {"stage": "b", "step": 1}]
    assert inspect.times(rows) == [{"stage": "a", "calls": 2, "seconds": "2.5"}]
