import re

import numpy as np
import pytest

from jnf_jax import specs
from jnf_jax.data import arrays, source

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
        (BITS, np.full((4, 2), 0.25), "0 or 1 for the Bernoulli modality 'x', got 0.25"),
        (WORD, np.full((4, 2), 3), r"'x' in \[0, 2\], got 3"),
        (WORD, np.zeros((4, 2)), "integer categories for modality 'x', got dtype float64"),
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
