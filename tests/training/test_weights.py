import dataclasses
import json
import shutil
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
import safetensors.numpy

from jnf_jax import ModalitySpec, configs
from jnf_jax.flows import maf
from jnf_jax.models import jnf, mmvae_plus, mvae, mvtcae
from jnf_jax.networks import base, mlp
from jnf_jax.training import files, stages, weights

SPECS = {"b": ModalitySpec(shape=(3,)), "a": ModalitySpec(shape=(2,), likelihood="laplace", scale=0.5)}
SMALL = mlp.Config(hidden=(4,))
PLAIN = mvae.Config(latent_dim=2, network=SMALL)
CONFIGS = {
    "jnf": jnf.Config(latent_dim=2, network=SMALL, joint_hidden=(4,), flow=maf.Config(num_blocks=1, hidden=(4,))),
    "mmvae_plus": mmvae_plus.Config(network=SMALL),
}


def saved(folder, config):
    model = configs.build(config, SPECS)
    params = jax.jit(model.init)(jax.random.key(3))
    weights.save(folder, params, config=config, specs=SPECS)
    return folder, model, params


@pytest.fixture(scope="module", params=CONFIGS)
def shared(request, tmp_path_factory):
    return saved(tmp_path_factory.mktemp("weights") / "shared", CONFIGS[request.param])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("weights") / "plain", PLAIN)[0]


@pytest.fixture
def folder(plain, tmp_path):
    """A folder of its own, to be damaged."""
    return shutil.copytree(plain, tmp_path / "shared")


def assert_same(params, expected):
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    for got, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


def test_what_was_saved_is_loaded_with_its_model(shared):
    folder, _, expected = shared
    model, params = weights.load(folder)
    assert_same(params, expected)
    assert list(model.specs.items()) == list(SPECS.items())  # networks are trained in this order
    z = model.sample_prior(params, jax.random.key(0), num_samples=3)
    assert model.decode(params, z)["b"].shape == (3, 3)


def test_stages_load_reads_it_too(shared):
    folder, model, expected = shared
    assert_same(stages.load(model, folder), expected)


def test_numpy_alone_reads_the_arrays(shared):
    folder, _, params = shared
    code = (
        "import sys, safetensors.numpy; arrays = safetensors.numpy.load_file(sys.argv[1]);"
        "print(len(arrays), sum(float(abs(x).sum()) for x in arrays.values())); assert 'jax' not in sys.modules"
    )
    out = subprocess.run([sys.executable, "-c", code, folder / weights.WEIGHTS], capture_output=True, text=True, check=True)
    count, total = out.stdout.split()
    leaves = jax.tree.leaves(params)
    assert int(count) == len(leaves)
    assert float(total) == pytest.approx(sum(float(abs(np.asarray(leaf)).sum()) for leaf in leaves))
    arrays = safetensors.numpy.load_file(folder / weights.WEIGHTS)
    assert {name.split("/")[0] for name in arrays} == {name for name, value in params.items() if jax.tree.leaves(value)}


def rewrite(folder, change):
    """Changes the arrays and makes the checksum fit again."""
    arrays = safetensors.numpy.load_file(folder / weights.WEIGHTS)
    change(arrays)
    safetensors.numpy.save_file(arrays, folder / weights.WEIGHTS)
    edit(folder, lambda about: about.update(sha256=files.sha256(folder / weights.WEIGHTS)))


def edit(folder, change):
    about = json.loads((folder / weights.MODEL).read_text())
    change(about)
    about["sum"] = weights._sum(about)
    (folder / weights.MODEL).write_text(json.dumps(about))


def first(arrays):
    return min(arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop(first(arrays)), r"Expected float32 of shape \(.*\) for decoders/a/.* got nothing"),
        (lambda arrays: arrays.update({"../../evil": np.zeros(2)}), r"Expected nothing for \.\./\.\./evil"),
        (lambda arrays: arrays.update({first(arrays): np.zeros(7)}), r"got float64 of shape \(7,\)"),
        (lambda arrays: arrays.update({k: x.astype(np.float64) for k, x in arrays.items()}), "Expected float32 .* got float64"),
    ],
    ids=["missing", "unknown", "shape", "type"],
)
def test_arrays_of_another_model_are_refused(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message):
        weights.load(folder)
    model = configs.build(PLAIN, SPECS)
    with pytest.raises(ValueError, match=message):
        stages.load(model, folder)


def test_a_flipped_bit_is_found(folder):
    path = folder / weights.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"Expected the sha256 .* the file is damaged"):
        weights.load(folder)


def test_a_pickle_in_place_of_the_arrays_is_not_read(folder):
    (folder / weights.WEIGHTS).write_bytes(b"\x80\x04cos\nsystem\n(S'touch /tmp/never'\ntR.")
    edit(folder, lambda about: about.update(sha256=files.sha256(folder / weights.WEIGHTS)))
    with pytest.raises(ValueError, match="Expected a safetensors file"):
        weights.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.update(format="jnf_jax/9"), "of format 'jnf_jax/2' .* got 'jnf_jax/9'"),
        (lambda about: about.pop("specs"), "Expected the fields"),
        (lambda about: about.update(weights="../../elsewhere.safetensors"), "Expected the fields"),
        (lambda about: about["config"].update(type="os:PathLike"), "Expected a config of a module in"),
        (lambda about: about["config"].update(type="jnf_jax.models.none:Config"), "a module that is installed"),
        (lambda about: about["config"].update(latent_dim="2"), "latent_dim, got '2'"),
        (lambda about: about.update(specs={}), "Expected modalities"),
        (lambda about: about["specs"]["a"].update(scale=-1.0), "Expected a positive, finite scale"),
    ],
)
def test_a_description_of_another_form_is_refused(folder, change, message):
    edit(folder, change)
    with pytest.raises(ValueError, match=message):
        weights.load(folder)


def test_what_is_no_json_or_not_there_is_refused(folder):
    (folder / weights.MODEL).write_text("{")
    with pytest.raises(ValueError, match=r"Expected JSON in .*model\.json"):
        weights.load(folder)
    (folder / weights.WEIGHTS).unlink()
    with pytest.raises(ValueError, match=r"without model\.safetensors"):
        weights.load(folder)


def test_weights_that_are_there_are_not_written_over(folder):
    model, params = weights.load(folder)
    with pytest.raises(ValueError, match="Expected a folder without weights"):
        weights.save(folder, params, config=PLAIN, specs=model.specs)


def test_parameters_of_another_config_are_refused_before_anything_is_written(folder, tmp_path):
    model, params = weights.load(folder)
    other = mvae.Config(latent_dim=3, network=SMALL)
    with pytest.raises(ValueError, match="in the parameters to save"):
        weights.save(tmp_path / "new", params, config=other, specs=model.specs)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("config", "specs", "message"),
    [
        (
            dataclasses.replace(PLAIN, network=mlp.Config(hidden=(4,), activation="tanh")),
            SPECS,
            r"model.network.activation: .* -> .tanh.",
        ),
        (mvtcae.Config(latent_dim=2, network=SMALL), SPECS, r"another: model: \{.*mvae:Config.* -> \{.*mvtcae:Config"),
        (PLAIN, SPECS | {"a": dataclasses.replace(SPECS["a"], scale=0.1)}, "specs.a.scale: 0.5 -> 0.1"),
        (PLAIN, dict(reversed(SPECS.items())), "order of specs: "),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, config, specs, message):
    model = configs.build(PLAIN, SPECS)
    weights.save(tmp_path / "w", model.init(jax.random.key(0)), config=PLAIN, specs=SPECS)
    shown = SPECS | {"a": dataclasses.replace(SPECS["a"], unit="mm")}
    stages.load(configs.build(PLAIN, shown), tmp_path / "w")
    with pytest.raises(
        ValueError, match=rf"the weights of this model, got .*model.json of {message}" if "another" in message else message
    ):
        stages.load(configs.build(config, specs), tmp_path / "w")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Warm(configs.Component):
    """An encoder with a learnt number beside its weights."""


class WarmEncoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        return self.param("temperature", lambda key: jax.numpy.ones(())) * nn.Dense(4)(x)


def build(config, spec):
    return base.Networks(WarmEncoder(), mlp.Decoder(hidden=(4,), shape=spec.parameter_shape))


def test_a_parameter_that_is_one_number_comes_back(tmp_path):
    folder, _, expected = saved(tmp_path / "warm", mvae.Config(latent_dim=2, network=Warm()))
    _, params = weights.load(folder, modules=(__name__.split(".")[0],))
    assert_same(params, expected)


def test_weights_are_for_values_that_were_standardised_as_theirs(tmp_path):
    at = lambda mean: SPECS | {"b": ModalitySpec(shape=(3,), mean=(mean, 0.0, 1.0), deviation=(2.0, 1.0, 1.0))}
    params = jax.jit(configs.build(PLAIN, at(100.0)).init)(jax.random.key(3))
    weights.save(tmp_path / "shared", params, config=PLAIN, specs=at(100.0))
    for mean in (100.0, 100.001):  # another processor may find another last digit
        weights.read(configs.build(PLAIN, at(mean)), tmp_path / "shared")
    weights.read(configs.build(PLAIN, SPECS), tmp_path / "shared")  # nobody told
    with pytest.raises(ValueError, match="Expected values of 'b' standardised as those that the weights were trained on"):
        weights.read(configs.build(PLAIN, at(101.0)), tmp_path / "shared")
    other = SPECS | {"b": ModalitySpec(shape=(4,), mean=(0.0,) * 4, deviation=(1.0,) * 4)}
    with pytest.raises(ValueError, match=r"of another: specs\.b\.shape"):  # another model is told first
        weights.read(configs.build(PLAIN, other), tmp_path / "shared")
