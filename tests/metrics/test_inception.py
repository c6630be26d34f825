import flax.traverse_util
import numpy as np
import pytest

from jnf_jax.metrics import inception

# features[:, ::256] of pytorch-fid 0.3.0's network under PyTorch 2.13 with the weights and images that `_file` makes
_PYTORCH_FID = [
    [0.0, 8.7972867e-01, 0.0, 2.8197353e-03, 3.08495, 9.944185e-01, 1.2717583, 1.027748],
    [0.0, 8.9627647e-01, 0.0, 6.8525737e-03, 3.2008488, 1.0273865, 1.3165348, 1.0819449],
]


def _file(path):
    """Writes weights of the published names and shapes, drawn in the order of the names; returns two images of the same stream."""
    published = {value[1]: (name, value[2]) for name, value in inception._KINDS.items()}
    shapes = {}
    for key, leaf in flax.traverse_util.flatten_dict(inception._shapes()).items():
        name, axes = published[key[-2:]]
        shape = [0] * leaf.ndim
        for ours, theirs in enumerate(axes):
            shape[theirs] = leaf.shape[ours]
        shapes[".".join((*key[1:-2], name))] = shape
    rng = np.random.RandomState(0)  # a stream that never changes
    arrays = {}
    for name in sorted(shapes):
        values = rng.standard_normal(shapes[name])
        if name.endswith("conv.weight"):
            values *= np.sqrt(2 / np.prod(shapes[name][1:]))
        else:
            values = 1 + 0.1 * np.tanh(values) if name.endswith(("bn.weight", "running_var")) else 0.1 * values
        arrays[name] = values.astype(np.float32)
    np.savez(path, **arrays)
    return rng.random_sample((2, 28, 28, 3)).astype(np.float32)


@pytest.mark.slow
def test_features_are_those_of_the_published_network(tmp_path):
    images = _file(tmp_path / "weights.npz")
    weights = inception.load(tmp_path / "weights.npz")
    found = inception.features(weights, images, batch_size=1)
    assert found.shape == (2, inception.NUM_FEATURES)
    np.testing.assert_allclose(found[:, ::256], _PYTORCH_FID, rtol=1e-3, atol=1e-4)
    grey = images[..., :1]
    once, repeated = (inception.features(weights, x, batch_size=1) for x in (grey, np.repeat(grey, 3, axis=-1)))
    np.testing.assert_array_equal(once, repeated)


def test_files_that_are_no_weights_are_refused(tmp_path):
    path = tmp_path / "weights.npz"
    with pytest.raises(FileNotFoundError, match="convert_inception"):
        inception.load(path)
    path.write_bytes(b"not an archive")
    with pytest.raises(ValueError, match=r"plain arrays"):
        inception.load(path)
    np.savez(path, **{"Conv2d_1a_3x3.conv.weight": np.zeros((32, 3, 3, 3), np.float32)})
    with pytest.raises(ValueError, match=r"got none for .* \(469 missing\)"):
        inception.load(path)
    np.savez(path, objects=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="plain arrays"):
        inception.load(path)


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match=r"got \(4, 200\)"):
        inception.features(inception.Weights({}, ""), np.zeros((4, 200)))
