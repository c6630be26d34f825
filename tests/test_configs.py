import dataclasses
import json
import subprocess
import sys

import jax
import pytest

from experiments import experiment, listing, run_folder
from jnf_jax import configs, keys, specs, subsets
from jnf_jax.flows import coupling, maf
from jnf_jax.models import jnf


@pytest.mark.parametrize("name", listing.names())
def test_every_experiment_survives_json_and_builds(name):
    config = experiment.find(name)
    again = configs.from_json(json.loads(json.dumps(configs.to_json(config))))
    assert again == config
    networks = getattr(config.model, "networks", {})
    image = specs.ModalitySpec(shape=(28, 28, 3))
    model = configs.build(config.model, dict.fromkeys([*networks, "one", "another"], image))
    assert {stage.name for stage in model.stages if stage.loss is not None} == set(config.training)


def test_nested_components_keep_their_types():
    config = jnf.Config(flow=coupling.Config(bijection="spline"))
    again = configs.from_json(json.loads(json.dumps(configs.to_json(config))))
    assert isinstance(again.flow, coupling.Config)
    assert again == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "os:path"}, "config of a module in"),
        ({"type": "jnf_jax.flows.maf:build"}, "name of a dataclass"),
        ({"num_blcoks": 3}, "num_blcoks"),
        ({"num_blocks": "three"}, "num_blocks, got 'three'"),
        ({"num_blocks": True}, "num_blocks, got True"),
        ({"log_scale_bound": "wide"}, "log_scale_bound, got 'wide'"),
    ],
)
def test_json_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        configs.from_json(configs.to_json(maf.Config()) | change)


def test_what_could_not_be_read_back_gets_no_folder(tmp_path):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(configs.Component):
        pass

    config = dataclasses.replace(experiment.find("linear_gaussian/jnf"), data=Config())
    with pytest.raises(ValueError, match="config of a module in"):
        run_folder.create(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_what_is_no_component_is_not_built():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(configs.Component):
        pass

    with pytest.raises(ValueError, match="function `build`"):
        configs.build(Config())
    with pytest.raises(ValueError, match="function `build`"):
        configs.build(3)


def test_streams_are_the_same_in_every_process():
    code = (
        "import jax; from jnf_jax import keys; print(jax.random.key_data(keys.stream(jax.random.key(3), 'flows', 7)).tolist())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert str(jax.random.key_data(keys.stream(jax.random.key(3), "flows", 7)).tolist()) == other.strip()


def test_streams_differ_by_name_and_step():
    draws = {float(jax.random.uniform(keys.stream(jax.random.key(0), name, step))) for name in ("a", "b") for step in (0, 1)}
    assert len(draws) == 4


def test_subsets():
    names = ("a", "b", "c")
    assert subsets.of_size(names, 2) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert len(subsets.proper(names)) == 6
    assert subsets.parse(names, "c, a") == ("a", "c")
    assert subsets.parse(names, "") == ()
    assert subsets.label(("a", "c")) == "a+c"
    assert subsets.label(()) == "prior"
    with pytest.raises(ValueError, match=r"modalities of \['a', 'b', 'c'\], got \['d'\]"):
        subsets.parse(names, "a,d")


def test_two_components_of_one_name_in_a_module_are_told_apart(monkeypatch):
    module = type(sys)("notebook")
    monkeypatch.setitem(sys.modules, "notebook", module)
    cell = "import dataclasses\nfrom jnf_jax import configs\n@dataclasses.dataclass(frozen=True)\nclass Config(configs.Component):\n    width: int = 1\ndef build(config):\n    return {}"
    exec(cell.format(1), vars(module))
    first = module.Config
    assert configs.build(first()) == 1
    exec(cell.format(2), vars(module))
    assert configs.build(module.Config()) == 2
    with pytest.raises(ValueError, match="one class Config and one function `build` in notebook, got another class"):
        configs.build(first())
