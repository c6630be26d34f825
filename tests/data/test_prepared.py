import concurrent.futures
import dataclasses
import io
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import numpy as np
import PIL.Image
import pytest

from jnf_jax import configs, specs
from jnf_jax.data import mnist, prepared, source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """A data set of this test."""

    seed: int = 0
    likelihood: str = "gaussian"
    scale: float = 1.0


SPECS = {"a": specs.ModalitySpec(shape=(2, 3), support=(0.0, 1.0)), "b": specs.ModalitySpec(shape=(4,))}
NUM = 2_500


def make(split):
    rng = np.random.default_rng(source.SPLITS.index(split))
    a, b = rng.integers(0, 256, (NUM, 2, 3), dtype=np.uint8), rng.normal(size=(NUM, 4)).astype(np.float32)
    return prepared.Examples(np.arange(NUM) % 7, {"a": lambda rows: a[rows], "b": lambda rows: b[rows]})


def load(config=Config(), split="train", make=make, raw=None):
    dtypes = {"a": np.uint8, "b": np.float32}
    return prepared.load(config, split, specs=SPECS, dtypes=dtypes, raw=raw or {"f": "1"}, make=make)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JNF_CACHE_DIR", str(tmp_path))
    return tmp_path


def never(split):
    pytest.fail(f"{split} was made again")


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    load()
    assert not list(temporary.iterdir())


def test_what_is_read_is_what_was_made_and_is_made_once():
    for split in source.SPLITS:
        part, made = load(split=split), make(split)
        np.testing.assert_array_equal(part.labels, made.labels)
        for name, view in made.views.items():
            np.testing.assert_array_equal(part.arrays[name], view(slice(None)))
            assert part.arrays[name].dtype == view(slice(0, 1)).dtype
        assert load(split=split, make=never).specs == SPECS


def test_pieces_are_read_as_one(monkeypatch):
    monkeypatch.setattr(prepared, "_PIECE", 700 * (6 + 16 + 4))  # 2,500 examples in pieces of 700
    part, made = load(), make("train")
    np.testing.assert_array_equal(part.labels, made.labels)
    np.testing.assert_array_equal(part.arrays["b"], made.views["b"](slice(None)))


def test_it_is_made_again_when_what_it_depends_on_changes():
    load()
    load(Config(likelihood="laplace", scale=2.0), make=never)
    for options in ({"config": Config(seed=1)}, {"raw": {"f": "2"}}):
        with pytest.raises(pytest.fail.Exception):
            load(make=never, **options)


def test_who_waits_for_another_preparation_reads_it():
    begun, go_on = threading.Event(), threading.Event()

    def slow(split):
        begun.set()
        assert go_on.wait(60)
        return make(split)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(load, make=slow)
        assert begun.wait(60)
        second = pool.submit(load, make=never)
        while not second.running():
            time.sleep(0.01)
        time.sleep(0.5)  # by then it waits for the first one
        go_on.set()
        np.testing.assert_array_equal(first.result().arrays["a"], second.result().arrays["a"])


def test_a_failed_preparation_is_not_taken_for_a_finished_one(cache):
    def broken(split):
        whole = make(split)

        def view(rows):
            if split == "test" and rows.start > 0:
                raise RuntimeError("the disk is full")
            return whole.views["a"](rows)

        return prepared.Examples(whole.labels, {"a": view, "b": whole.views["b"]})

    with pytest.raises(RuntimeError, match="disk is full"):
        load(make=broken)
    assert len(load(split="test")) == NUM


def test_a_killed_preparation_is_begun_anew_and_its_rest_cleared_away(cache):
    code = """
    import os, numpy as np, test_prepared
    from jnf_jax.data import prepared
    def dying(split):
        whole = test_prepared.make(split)
        def view(rows):
            if rows.start > 0:
                os.kill(os.getpid(), 9)
            return whole.views["a"](rows)
        return prepared.Examples(whole.labels, {"a": view, "b": whole.views["b"]})
    test_prepared.load(make=dying)
    """
    here = os.path.dirname(__file__)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, *sys.path])}
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment)
    assert result.returncode == -9
    left = [p for p in cache.rglob("*incomplete*")]
    assert left
    assert len(load()) == NUM
    assert not any(p.exists() for p in left)
    load(split="test", make=never)


def test_unknown_split_is_refused_before_anything_is_made():
    with pytest.raises(ValueError, match="Expected a split"):
        load(split="dev", make=never)


def test_mnist_that_tensorflow_datasets_has_prepared_is_read_where_raw_files_are_not(tmp_path, monkeypatch):
    """Its stock builder needs TensorFlow to prepare: a builder of the same name and features stands in for it."""
    import tensorflow_datasets as tfds

    images = np.random.default_rng(0).integers(0, 256, (12, 28, 28, 1), dtype=np.uint8)

    def png(image):
        out = io.BytesIO()
        PIL.Image.fromarray(image[..., 0]).save(out, "png")
        out.seek(0)
        return out

    class Stock(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.1")
        name = "mnist"

        def _info(self):
            features = {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {part: self._generate_examples() for part in ("train", "test")}

        def _generate_examples(self):
            for i, image in enumerate(images):
                yield i, {"image": png(image), "label": i % 10}

    monkeypatch.setenv("JNF_DATA_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    assert prepared.stock_version("mnist") is None
    Stock(data_dir=str(tmp_path / "tfds"), file_format="array_record").download_and_prepare(file_format="array_record")
    found, labels = mnist.read("train")
    np.testing.assert_array_equal(found, images[..., 0])
    np.testing.assert_array_equal(labels, np.arange(12) % 10)
    assert mnist.identity() == {"mnist": "3.0.1"}
