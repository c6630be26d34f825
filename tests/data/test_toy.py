import numpy as np

from jnf_jax.data import toy

CONFIG = toy.Config(num_train=400, num_test=1_000)


def test_the_rule_on_the_pixels_finds_every_class():
    part = toy.build(CONFIG, "test")
    for name, images in part.arrays.items():
        assert set(np.unique(images)) == {0, 255}, name
        np.testing.assert_array_equal(toy.classify(images / 255), part.labels)


def test_classes_are_balanced_and_sizes_independent():
    part = toy.build(CONFIG, "test")
    assert part.labels.sum() == 500
    full = part.labels == 1
    areas = [(images[full] > 0).mean((1, 2, 3)) for images in part.arrays.values()]
    square, circle = np.sqrt(areas[0]), np.sqrt(areas[1] * 4 / np.pi)  # the sizes, to half a pixel
    for size in (square, circle):
        assert 0.25 < size.min() < 0.35
        assert 0.85 < size.max() < 0.95
        assert abs(size.mean() - 0.6) < 5 * 0.6 / np.sqrt(12 * 500) + 1 / 32
    assert abs(np.corrcoef(square, circle)[0, 1]) < 5 / np.sqrt(500)


def test_a_ring_is_a_quarter_thick():
    (image,) = toy.draw("circle", np.asarray([0.8]), np.asarray([0]))
    across = image[16, 16:, 0] > 0
    assert across.sum() == 4  # pixels of 1/16
    (image,) = toy.draw("square", np.asarray([0.8]), np.asarray([0]))
    assert (image[16, 16:, 0] > 0).sum() == 4
