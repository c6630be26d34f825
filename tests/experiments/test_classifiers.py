import dataclasses

import jax
import numpy as np
import pytest

from experiments import classifiers, experiment
from experiments.configs import published
from jnf_jax import specs
from jnf_jax.data import source, stream
from jnf_jax.metrics import classifiers as judges_lib
from jnf_jax.networks import mlp
from jnf_jax.training import writers


def test_judges_of_incomplete_data_are_those_of_the_complete(tmp_path, monkeypatch):
    monkeypatch.setenv("JNF_CACHE_DIR", str(tmp_path))
    config = experiment.find("linear_gaussian/jnf")
    more_than_there_are = {"batch_size": 64}
    training = dataclasses.replace(config.classifiers.training, num_steps=2, steps_per_call=2, **more_than_there_are)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, num_train=60, num_validation=20, num_test=20),
        classifiers=dataclasses.replace(config.classifiers, network=mlp.Config(hidden=(4,)), training=training),
    )

    def trained(config):
        with writers.Progress() as progress:
            return classifiers.trained(config, experiment.Splits(config.data), progress)[1]

    complete = trained(config)
    for complete_only in (False, True):
        less = published.incomplete(config, fraction=0.5, complete_only=complete_only)
        if not complete_only:
            assert len(experiment.Splits(less.data)["train"].complete()) < 30
        jax.tree.map(np.testing.assert_array_equal, trained(less), complete)
    assert len(list((tmp_path / "classifiers").iterdir())) == 1


def test_labels_that_are_numbers_of_something_else_are_refused():
    data = experiment.Splits(experiment.find("linear_gaussian/jnf").data)
    small = {split: data[split].take(20) for split in ("train", "validation", "test")}
    assert classifiers._num_classes(small) == 1 + max(part.labels.max() for part in small.values())
    test = dataclasses.replace(small["test"], labels=np.where(np.arange(20) > 9, 100_000, 5))
    with pytest.raises(ValueError, match=r"numbered 0, 1, 2 and so on, got \d+ different ones up to 100000"):
        classifiers._num_classes(small | {"test": test})


def test_judges_of_other_masks_are_others_and_data_in_files_are_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setenv("JNF_CACHE_DIR", str(tmp_path / "cache"))
    config = experiment.find("linear_gaussian/jnf")
    training = dataclasses.replace(config.classifiers.training, num_steps=1, steps_per_call=1, batch_size=16)
    judges = dataclasses.replace(config.classifiers, network=mlp.Config(hidden=(4,)), training=training)
    config = dataclasses.replace(config, classifiers=judges)
    splits = experiment.Splits(config.data)
    small = {split: splits[split].take(1_500 if split == "train" else 40) for split in source.SPLITS}
    name = next(iter(small["train"].specs))
    np.save(tmp_path / "rows.npy", small["train"].arrays[name])
    rows, read = stream.Rows(tmp_path / "rows.npy"), []
    monkeypatch.setattr(stream.Rows, "_read", lambda self, rows, of=stream.Rows._read: read.append(len(rows)) or of(self, rows))

    def folders(present):
        train = dataclasses.replace(small["train"], arrays=small["train"].arrays | {name: rows}, masks={name: present})
        with writers.Progress() as progress:
            classifiers.trained(config, small | {"train": train}, progress)
        return len(list((tmp_path / "cache" / "classifiers").iterdir()))

    assert folders(np.arange(1_500) % 2 == 0) == 1
    assert max(read) <= 1_000
    assert folders(np.arange(1_500) % 2 == 0) == 1
    assert folders(np.arange(1_500) % 3 == 0) == 2


def test_data_without_labels_are_refused_by_name():
    data = experiment.Splits(experiment.find("linear_gaussian/jnf").data)
    small = {split: data[split].take(20) for split in source.SPLITS}
    with pytest.raises(ValueError, match="labelled data set for the classifiers, got one without labels in test"):
        classifiers._num_classes(small | {"test": dataclasses.replace(small["test"], labels=None)})


def test_a_convolutional_judge_is_for_images_alone():
    modalities = {
        "scan": specs.ModalitySpec(shape=(8, 8, 1)),
        "blood": specs.ModalitySpec(shape=(5,)),
        "kind": specs.ModalitySpec(shape=(1,), likelihood="categorical", num_categories=3),
    }
    judges = judges_lib.build(judges_lib.Config(), modalities, 4)
    params = judges.init(jax.random.key(0))
    examples = {
        "scan": np.zeros((2, 8, 8, 1), np.float32),
        "blood": np.zeros((2, 5), np.float32),
        "kind": np.zeros((2, 1), int),
    }
    for name, x in examples.items():
        assert judges.judge(params, name, x)[0].shape == (2, 4)
    assert "Halve_0" in str(jax.tree.structure(params["classifiers"]["scan"]))
