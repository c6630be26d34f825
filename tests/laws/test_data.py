import dataclasses
import itertools

import discover
import forms
import numpy as np
import pytest
import rawfiles

from jnf_jax import configs
from jnf_jax.data import mhd, missing, polymnist, source, toy

SMALL = {"num_train": 200, "num_validation": 40, "num_test": 60, "pairs_per_digit": 1}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return forms.write(tmp_path_factory.mktemp("forms"))


@pytest.fixture(scope="module", autouse=True)
def raw(tmp_path_factory):
    with rawfiles.installed(tmp_path_factory) as root:
        yield root


@pytest.fixture(params=discover.modules("data"), ids=lambda m: m.__name__.rsplit(".", 1)[-1])
def config(request, files):
    if request.param in files:
        return files[request.param]
    fields = {f.name for f in dataclasses.fields(request.param.Config)}
    return request.param.Config(**{k: v for k, v in SMALL.items() if k in fields})


def splits(config):
    return {split: configs.build(config, split) for split in source.SPLITS}


def test_arrays_fit_their_specs(config):
    for part in splits(config).values():
        source.check(part.specs, part.arrays, part.labels)
        assert len(part) > 0


def values(part):
    return [*part.arrays.values(), *(part.masks or {}).values()]


def test_deterministic_in_the_seed(config, tmp_path, monkeypatch):
    first = splits(config)
    with monkeypatch.context() as patch:
        patch.setenv("JNF_CACHE_DIR", str(tmp_path))  # nothing that was prepared before serves again
        again = splits(config)
    other = splits(dataclasses.replace(config, seed=config.seed + 1))
    for split in source.SPLITS:
        for a, b in zip(*map(values, (first[split], again[split])), strict=True):
            np.testing.assert_array_equal(a, b)
        if split == "test" and isinstance(config, OFFICIAL_TEST):
            continue
        assert any((a != b).any() for a, b in zip(*map(values, (first[split], other[split])), strict=True))


# examples are published as such: the seed only chooses what is held out, or what is missing
OFFICIAL_TEST = (mhd.Config, polymnist.Config, missing.Config)
REPEATING = (toy.Config,)  # binary shapes have few sizes in pixels: pictures drawn independently can be the same


def test_splits_share_no_example(config):
    parts = splits(config)
    if isinstance(config, REPEATING):  # what can be asked of them is that the splits are different draws
        num = min(map(len, parts.values()))
        drawn = [[x[:num] for x in part.arrays.values()] for part in parts.values()]
        assert all(
            (a != b).any() for first, second in itertools.combinations(drawn, 2) for a, b in zip(first, second, strict=True)
        )
        return
    rows = {
        split: {b"".join(np.ascontiguousarray(x[i]).tobytes() for x in part.arrays.values()) for i in range(len(part))}
        for split, part in parts.items()
    }
    assert {split: len(r) for split, r in rows.items()} == {split: len(part) for split, part in parts.items()}
    assert not rows["train"] & rows["test"]
    assert not rows["train"] & rows["validation"]
    assert not rows["validation"] & rows["test"]


WHOLE = (
    "mnist",
    "svhn",
    "image",
    "audio",
    "trajectory",
)  # modalities that show an instance as it is: partners and crops hide no leak


def test_splits_share_no_instance(config):
    parts = splits(config)
    shown = [name for name in parts["train"].specs if name in WHOLE]
    if not shown:
        pytest.skip("no modality shows an instance as it is")
    for name in shown:
        rows = {split: {np.ascontiguousarray(x).tobytes() for x in part.arrays[name]} for split, part in parts.items()}
        for first, second in itertools.combinations(source.SPLITS, 2):
            assert not rows[first] & rows[second], (name, first, second)


def test_labels_are_the_classes_of_every_modality(config):
    """Raw files' classes can be read off their pictures: the bright row of a digit."""
    part = configs.build(config, "train")
    digits = [name for name in ("mnist", "image") if name in part.specs and part.specs[name].shape == (28, 28, 1)]
    if not digits or isinstance(config, mhd.Config):
        pytest.skip("no raw digits to read classes from")
    plain = part.arrays[digits[0]]
    np.testing.assert_array_equal(plain[..., 0].astype(int).sum(2)[:, 8:18].argmax(1), part.labels)


def test_unknown_split_is_refused(config):
    with pytest.raises(ValueError, match="Expected a split"):
        configs.build(config, "dev")
