import numpy as np

from jnf_jax.metrics import codes

SHARED = {"shared": np.arange(12.0).reshape(3, 4), "private": {"a": np.ones((3, 1)), "b": np.zeros((3, 2))}}


def test_codes_pass_through_one_array_and_back():
    array = codes.as_array(SHARED)
    assert array.shape == (3, 7)
    again = codes.from_array(array, SHARED)
    for name in ("a", "b"):
        np.testing.assert_array_equal(again["private"][name], SHARED["private"][name])
    np.testing.assert_array_equal(again["shared"], SHARED["shared"])
    np.testing.assert_array_equal(codes.from_array(array, array), array)


def test_parts_are_taken_and_put_together():
    assert codes.length(SHARED) == 3
    parts = [codes.take(SHARED, np.s_[:1]), codes.take(SHARED, np.s_[1:])]
    np.testing.assert_array_equal(codes.as_array(codes.concatenated(parts)), codes.as_array(SHARED))
