import hashlib

import numpy as np
import pytest
import sklearn.datasets

from jnf_jax.data import polydigits


def test_no_digit_is_in_two_splits():
    parts = polydigits.instances(0)
    together = np.concatenate(list(parts.values()))
    assert len(together) == len(set(together)) == 1797
    labels = sklearn.datasets.load_digits().target
    for part in parts.values():
        assert set(labels[part]) == set(range(10))


def test_modalities_show_different_instances_of_the_labelled_digit(monkeypatch):
    seen = {}
    original = polydigits._pair
    monkeypatch.setattr(polydigits, "_pair", lambda *args: seen.setdefault("chosen", original(*args)))
    part = polydigits.build(polydigits.Config(num_test=50), "test")
    digits = sklearn.datasets.load_digits().target
    pool = set(polydigits.instances(0)["test"])
    for row, label in zip(seen["chosen"], part.labels, strict=True):
        assert len(set(row)) == 4
        assert set(row) <= pool
        assert set(digits[row]) == {label}


def test_parts_of_the_photographs_are_disjoint():
    boxes = list(polydigits._PARTS.values())
    for i, (name, rows, columns) in enumerate(boxes):
        for other, other_rows, other_columns in boxes[i + 1 :]:
            apart = rows.stop <= other_rows.start or other_rows.stop <= rows.start
            apart |= columns.stop <= other_columns.start or other_columns.stop <= columns.start
            assert name != other or apart


def test_colours_are_inverted_on_the_digit_alone():
    crop = polydigits._compose(np.random.default_rng(0), 1, np.zeros((3, 28, 28), np.float32))
    inverted = polydigits._compose(np.random.default_rng(0), 1, np.ones((3, 28, 28), np.float32))
    np.testing.assert_array_equal(crop.astype(int) + inverted, 255)


def test_test_digits_are_drawn_as_they_are_and_classes_are_balanced():
    part = polydigits.build(polydigits.Config(num_test=100), "test")
    assert np.bincount(part.labels).tolist() == [10] * 10
    strokes = part.arrays["m3"][..., 0] / 255.0
    assert 0.05 < strokes.mean() < 0.4
    assert (part.arrays["m3"][..., 0] == part.arrays["m3"][..., 1]).all()


def test_empty_split_is_refused():
    with pytest.raises(ValueError, match="at least one example in train"):
        polydigits.build(polydigits.Config(num_train=0), "train")


def test_more_views_have_colours_of_their_own():
    small = {"num_train": 20, "num_validation": 10, "num_test": 10}
    part = polydigits.build(polydigits.Config(num_modalities=16, **small), "validation")
    assert list(part.specs) == [f"m{j}" for j in range(16)]
    assert len({x.tobytes() for x in part.arrays.values()}) == 16
    crops = [polydigits._compose(np.random.default_rng(0), j, np.zeros((3, 28, 28), np.float32)) for j in (1, 5, 9, 13)]
    for crop, order in zip(crops, polydigits._CHANNELS, strict=True):
        np.testing.assert_array_equal(crop, crops[0][..., order])
    assert all((part.arrays[name][..., [0, 2]] == 0).all() for name in ("m11",))
    assert part.arrays["m11"][..., 1].any()
    with pytest.raises(ValueError, match="2 to 16 modalities, got 17"):
        polydigits.Config(num_modalities=17)


def test_four_views_are_those_of_before():
    """The demo's numbers were measured on them."""
    small = polydigits.Config(num_train=20, num_validation=10, num_test=10)
    digest = hashlib.sha256(b"".join(x.tobytes() for x in polydigits.build(small, "train").arrays.values()))
    assert digest.hexdigest()[:16] == "9b5ce49c08ef6919"
