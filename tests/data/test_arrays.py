import dataclasses
import re
import tracemalloc

import numpy as np
import pytest

from jnf_jax import specs
from jnf_jax.data import arrays, linear_gaussian, missing, source

BITS = specs.ModalitySpec(shape=(2,), likelihood="bernoulli")
WORD = specs.ModalitySpec(shape=(2,), likelihood="categorical", num_categories=3)
REAL = specs.ModalitySpec(shape=(2,), likelihood="gaussian")
IMAGE = specs.ModalitySpec(shape=(2,), likelihood="laplace", support=(0.0, 1.0))


@pytest.mark.parametrize(
    ("spec", "value", "message"),
    [
        (REAL, np.zeros((4, 3)), r"'x' of shape \(N, 2\), got \(4, 3\)"),
        (REAL, np.array([[0, 1], [np.nan, 0]]), r"finite values for modality 'x', got nan at \(1, 0\)"),
        (REAL, np.array([[0, 1], [np.inf, 0]]), r"got inf at \(1, 0\)"),
        (REAL, np.zeros((4, 2), int), "Expected floats .* 'x', got dtype int64"),
        (REAL, np.zeros((4, 2), complex), "Expected numbers for modality 'x', got dtype complex128"),
        (IMAGE, np.full((4, 2), 1.5), r"'x' in \[0.0, 1.0\], got 1.5"),
        (IMAGE, np.full((4, 2), -0.5), r"'x' in \[0.0, 1.0\], got -0.5"),
        (BITS, np.full((4, 2), 2), r"'x' in \[0, 1\], got 2"),
        (BITS, np.full((4, 2), 0.25), "0 or 1 for the bernoulli modality 'x', got 0.25"),
        (WORD, np.full((4, 2), 3), r"'x' in \[0, 2\], got 3"),
        (WORD, np.zeros((4, 2)), "integer categories for modality 'x', got dtype float64"),
        (REAL, np.zeros((4, 2), ">f8"), r"byte order for modality 'x', got >f8: `x.astype\('float64'\)`"),
        (REAL, np.zeros((0, 2)), "at least one example"),
    ],
)
def test_values_without_density_are_refused_by_name(spec, value, message):
    with pytest.raises(ValueError, match=message):
        source.check({"x": spec}, {"x": value})


@pytest.mark.parametrize(
    ("given", "labels", "message"),
    [
        ({"x": np.zeros((4, 2))}, None, r"modalities \['x', 'y'\], got \['x'\]"),
        ({"x": np.zeros((4, 2)), "y": np.zeros((5, 2))}, None, "as many examples"),
        ({"x": np.zeros((4, 2)), "y": np.zeros((4, 2))}, np.zeros(4), "integer labels"),
        ({"x": np.zeros((4, 2)), "y": np.zeros((4, 2))}, np.zeros(3, int), "integer labels"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(given, labels, message):
    with pytest.raises(ValueError, match=message):
        source.check({"x": REAL, "y": REAL}, given, labels)


@pytest.mark.parametrize("name", ["type", "all", "prior", "a+b", "a,b", "a/b", ""])
def test_names_with_a_meaning_of_their_own_are_refused(name):
    with pytest.raises(ValueError, match=f"Expected names of modalities .* got '{re.escape(name)}'"):
        source.check({name: REAL}, {name: np.zeros((4, 2))})


def test_negative_labels_are_refused():
    with pytest.raises(ValueError, match="labels of 0 and more, got -1"):
        source.check({"x": REAL}, {"x": np.zeros((4, 2))}, np.array([0, 1, -1, 2]))


def test_uint8_needs_a_support():
    source.check({"x": IMAGE}, {"x": np.zeros((4, 2), np.uint8)})
    with pytest.raises(ValueError, match="uint8 with a support"):
        source.check({"x": REAL}, {"x": np.zeros((4, 2), np.uint8)})


def test_objects_in_a_file_are_refused(tmp_path):
    path = tmp_path / "bad.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="npz file of plain arrays"):
        arrays.load(str(path))


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file at"):
        arrays.load(str(tmp_path / "none.npz"))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match="npz file of plain arrays"):
        arrays.load(str(tmp_path / "text.npz"))


def test_too_few_examples_for_three_splits():
    with pytest.raises(ValueError, match="of 3 examples"):
        arrays.splits({"x": REAL}, {"x": np.zeros((3, 2))})


def incomplete(tmp_path, **extra):
    path = tmp_path / "file.npz"
    real = np.random.default_rng(0).normal(size=(40, 2))
    real[3] = np.nan
    np.savez(path, a=real, b=np.ones((40, 2)), b_mask=np.arange(40) % 4 != 0, labels=np.arange(40) % 3, **extra)
    return arrays.Config(path=str(path), specs={"a": REAL, "b": BITS}, nan_is_missing=True)


def test_masks_come_from_the_file_and_from_nan(tmp_path):
    config = incomplete(tmp_path)
    parts = [arrays.build(config, split) for split in source.SPLITS]
    assert sum(int((~part.masks["a"]).sum()) for part in parts) == 1
    assert sum(int((~part.masks["b"]).sum()) for part in parts) == 10
    assert all(np.isfinite(part.arrays["a"]).all() for part in parts)
    train = parts[0]
    assert set(train.batch()) == {"a", "b", specs.MASKS}
    complete = train.complete()
    assert complete.masks is None
    assert len(complete) == (train.masks["a"] & train.masks["b"]).sum()
    np.testing.assert_array_equal(train.take(5).masks["b"], train.masks["b"][:5])


def test_categories_beside_nan_are_whole_numbers(tmp_path):
    kind = np.arange(40.0)[:, None] % 3
    kind[5] = np.nan
    np.savez(tmp_path / "file.npz", a=np.ones((40, 2)), kind=kind)
    three = specs.ModalitySpec(shape=(1,), likelihood="categorical", num_categories=3)
    config = arrays.Config(path=str(tmp_path / "file.npz"), specs={"a": REAL, "kind": three}, nan_is_missing=True)
    parts = [arrays.build(config, split) for split in source.SPLITS]
    assert sum(int((~part.masks["kind"]).sum()) for part in parts) == 1
    assert np.issubdtype(parts[0].arrays["kind"].dtype, np.integer)
    kind[7] = np.inf
    with pytest.raises(ValueError, match="finite values for modality 'kind', got inf"):
        arrays.splits({"a": REAL, "kind": three}, {"a": np.ones((40, 2)), "kind": kind}, masks={"kind": np.arange(40) != 5})


def test_a_modality_may_be_called_a_mask(tmp_path):
    both = {"scan": REAL, "scan_mask": BITS}
    for name, spec in both.items():
        np.save(tmp_path / f"{name}.npy", np.ones((40, *spec.shape)))
    part = arrays.build(arrays.Config(path=str(tmp_path), specs=both), "train")
    assert list(part.specs) == ["scan", "scan_mask"]
    assert part.masks is None


def test_modalities_of_other_lengths_are_told_where_there_are_masks():
    both = {"x": REAL, "y": REAL}
    with pytest.raises(ValueError, match=r"as many examples in every modality, got \{'x': 10, 'y': 9\}"):
        arrays.splits(both, {"x": np.zeros((10, 2)), "y": np.zeros((9, 2))}, masks={"y": np.ones(10, bool)})


@pytest.mark.parametrize("support", [(0.0, 0.3), (-0.1, 0.1), (0.0, 1.1)])
def test_ends_of_a_support_are_as_precise_as_the_data(support):
    both = {"x": specs.ModalitySpec(shape=(1,), support=support), "y": REAL}
    ends = np.clip(np.linspace(-2, 2, 40)[:, None], *support).astype(np.float32)
    other = np.zeros((40, 2))
    assert len(arrays.splits(both, {"x": ends, "y": other}, masks={"x": np.arange(40) % 5 > 0})["train"]) == 32
    with pytest.raises(ValueError, match="values of modality 'x' in"):
        arrays.splits(both, {"x": ends + np.float32(1e-3), "y": other})


def test_a_support_is_finite():
    with pytest.raises(ValueError, match=r"low < high, both finite, got \(0.0, inf\)"):
        specs.ModalitySpec(shape=(2,), support=(0.0, np.inf))


def test_nan_is_an_error_unless_it_is_said_to_mean_missing(tmp_path):
    config = dataclasses.replace(incomplete(tmp_path), nan_is_missing=False)
    with pytest.raises(ValueError, match="finite values for modality 'a'"):
        arrays.build(config, "train")


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"z": np.ones(4, bool)}, r"masks of modalities of \['x', 'y'\], got \['z'\]"),
        ({"x": np.ones(3, bool)}, r"booleans \(4,\) for 'x', got bool \(3,\)"),
        ({"x": np.ones(4)}, r"for 'x', got float64"),
        (
            {"x": np.arange(4) > 0, "y": np.arange(4) > 1},
            "a modality in every example, got none in 1 of 4, the first is example 0",
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, message):
    with pytest.raises(ValueError, match=message):
        source.Source(specs={"x": REAL, "y": REAL}, arrays=dict.fromkeys("xy", np.zeros((4, 2))), masks=masks)


def test_masks_may_be_lists_and_belong_to_modalities_that_somebody_has():
    two = {"x": REAL, "y": REAL}
    given = dict.fromkeys("xy", np.zeros((10, 2)))
    mask = [True, False] * 5
    parts = arrays.splits(two, given, masks={"x": mask})
    assert sum(int(part.masks["x"].sum()) for part in parts.values()) == 5
    with pytest.raises(ValueError, match=r"arrays for the modalities \['x', 'y'\], got \['x'\]"):
        arrays.splits(two, {"x": given["x"]}, masks={"y": mask})
    with pytest.raises(ValueError, match=r"a training example that has modality 'y', got none.$"):
        arrays.splits(two, given, masks={"y": [False] * 10})


def summary(x, mask=None):
    both = {"x": REAL, "y": BITS}
    arrays = {"x": x, "y": np.ones((len(x), 2))}
    return source.Source(specs=both, arrays=arrays, masks=None if mask is None else {"x": mask}).summary()


def test_a_summary_tells_data_apart_and_not_their_last_digits():
    x = np.random.default_rng(0).normal(size=(300, 2))
    few = x[np.linspace(0, 299, 64).astype(int)]
    assert summary(x)["x"] == pytest.approx({"mean": few.mean(), "deviation": few.std()}, abs=0.01)
    for offset in (0, 300, 1e4):
        last = np.nextafter((x + offset).astype(np.float32), np.float32(np.inf))
        assert summary((x + offset).astype(np.float32)) == summary(last)
    assert summary(np.ones((300, 2)))["x"] == {"mean": 1.0, "deviation": 0.0}
    assert summary(np.zeros((300, 2)))["x"] == {"mean": 0.0, "deviation": 0.0}
    for other in (x + 5, x * 2, x[:299]):
        assert summary(other) != summary(x)


def test_a_summary_is_of_what_is_there():
    x, mask = np.random.default_rng(0).normal(size=(300, 2)), np.arange(300) % 3 > 0
    filled = np.where(mask[:, None], x, 7.0)
    assert summary(filled, mask) == summary(x, mask) == summary(x, mask) | {"examples": 300}
    assert summary(x, mask)["x"]["present"] == 200
    assert summary(x, ~mask) != summary(x, mask) != summary(x)
    assert summary(x, np.zeros(300, bool))["x"] == {"present": 0}


def test_a_summary_of_large_examples_takes_little_memory():
    spec = specs.ModalitySpec(shape=(2**20,), support=(0.0, 1.0))
    data = source.Source(specs={"x": spec}, arrays={"x": np.zeros((70, 2**20), np.uint8)})
    tracemalloc.start()
    data.summary()
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_nothing_complete_is_said():
    data = source.Source(specs={"x": REAL}, arrays={"x": np.zeros((2, 2))})
    assert data.complete() is data
    masks = {"x": np.arange(2) > 0, "y": np.arange(2) < 1}
    data = source.Source(specs={"x": REAL, "y": REAL}, arrays=dict.fromkeys("xy", np.zeros((2, 2))), masks=masks)
    with pytest.raises(ValueError, match="an example that has every modality, got none"):
        data.complete()


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_modalities_are_missing_as_often_as_asked(fraction):
    inner = linear_gaussian.Config(num_train=4_000, num_validation=50, num_test=50)
    part = missing.build(missing.Config(data=inner, fraction=fraction), "train")
    share = np.stack(list(part.masks.values())).mean(1)
    expected = 1 - fraction + fraction**3 / 3  # one of three stays where all would go
    assert (np.abs(share - expected) < 5 * np.sqrt(0.25 / 4_000)).all()


def test_all_or_none_of_the_incomplete_examples_are_kept():
    inner = linear_gaussian.Config(num_train=4_000, num_validation=50, num_test=50)
    part = missing.build(missing.Config(data=inner, fraction=0.5), "train")
    assert missing.build(missing.Config(data=inner, fraction=0.5), "test").masks is None
    complete = missing.build(missing.Config(data=inner, fraction=0.5, complete_only=True), "train")
    assert len(complete) == np.all(list(part.masks.values()), axis=0).sum()
    with pytest.raises(ValueError, match=r"fraction in \[0, 1\), got 1.0"):
        missing.Config(fraction=1.0)


def test_what_was_missing_before_stays_missing(monkeypatch):
    rng = np.random.default_rng(0)
    specs = {"x": REAL, "y": REAL}
    masks = {"x": rng.random(1_000) < 0.5}
    inner = source.Source(specs=specs, arrays={name: rng.normal(size=(1_000, 2)) for name in specs}, masks=masks)
    monkeypatch.setattr(missing.configs, "build", lambda config, split: inner)
    part = missing.build(missing.Config(fraction=0.5), "train")
    assert not (part.masks["x"] & ~masks["x"]).any()
    assert part.masks["y"][~masks["x"]].all()  # the one that an example had stays
    both = masks["x"]
    assert abs((part.masks["x"] & part.masks["y"])[both].mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / both.sum())
    assert abs((part.masks["x"] & ~part.masks["y"])[both].mean() - 0.375) < 5 * np.sqrt(0.375 * 0.625 / both.sum())
    assert (
        len(missing.build(missing.Config(fraction=0.5, complete_only=True), "train"))
        == (part.masks["x"] & part.masks["y"]).sum()
    )


def test_taking_a_modality_from_every_training_example_is_refused():
    config = missing.Config(data=linear_gaussian.Config(num_train=3, num_validation=3, num_test=3), fraction=0.9)
    with pytest.raises(ValueError, match="a training example that still has modality"):
        for seed in range(20):
            missing.build(dataclasses.replace(config, seed=seed), "train")
