import numpy as np
import pytest

from experiments import pictures
from jnf_jax import specs


def test_a_path_is_drawn_as_a_curve_with_y_upwards():
    spec = specs.ModalitySpec(shape=(100,), support=(0.0, 1.0), layout="path")
    high = np.stack([np.linspace(0, 1, 50), np.full(50, 1.0)], axis=1).reshape(-1)  # a line along the upper edge
    image = pictures.as_image(spec, high)
    assert image.shape == (28, 28, 3)
    rows = image[..., 0].mean(1)
    assert rows.argmax() in (2, 3)  # a tenth of the picture is margin
    assert rows[8:].max() == 0


@pytest.mark.parametrize("shape", [(7,), (4, 2)])
def test_only_a_vector_of_pairs_is_a_path(shape):
    with pytest.raises(ValueError, match="vector of pairs"):
        specs.ModalitySpec(shape=shape, layout="path")
