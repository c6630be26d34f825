"""Linear-Gaussian data, whose posteriors are known for every subset of the modalities: the oracle of tests and tutorials.

    z ~ N(0, I_D),   x_j = W_j z + b_j + scale_j * noise

so that p(z | x_S) = N(P_S^-1 sum_{j in S} W_j^T (x_j - b_j) / scale_j^2, P_S^-1),  P_S = I + sum_{j in S} W_j^T W_j / scale_j^2.
"""

import dataclasses

import numpy as np

from jnf_jax import configs, specs
from jnf_jax.data import source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(configs.Component):
    """Linear-Gaussian data; modalities are called x0, x1, ..

    Attributes:
      seed: of the maps and the data.
      latent_dim: D.
      dims: dimension of each modality.
      scale: standard deviation of every modality's noise.
      num_train: training examples.
      num_validation: validation examples.
      num_test: test examples.
    """

    seed: int = 0
    latent_dim: int = 2
    dims: tuple[int, ...] = (3, 4, 5)
    scale: float = 1.0
    num_train: int = 10_000
    num_validation: int = 1_000
    num_test: int = 1_000


@dataclasses.dataclass(frozen=True)
class LinearMap:
    """The generative map of one modality.

    Attributes:
      weight: W_j `[dim(x_j), D]`.
      bias: b_j `[dim(x_j)]`.
      scale: standard deviation of the noise.
    """

    weight: np.ndarray
    bias: np.ndarray
    scale: float


def maps(config: Config) -> dict[str, LinearMap]:
    """Returns the maps of all modalities."""
    rng = np.random.default_rng([config.seed, len(source.SPLITS)])
    return {
        f"x{j}": LinearMap(weight=rng.normal(size=(dim, config.latent_dim)), bias=rng.normal(size=dim), scale=config.scale)
        for j, dim in enumerate(config.dims)
    }


def build(config: Config, split: source.Split) -> source.Source:
    """Returns one split, float32; the label is the sign of z's first coordinate (0 or 1)."""
    num = source.num_examples(config, split)
    rng = np.random.default_rng([config.seed, source.SPLITS.index(split)])
    z = rng.normal(size=(num, config.latent_dim))
    arrays = {
        name: (z @ m.weight.T + m.bias + m.scale * rng.normal(size=(num, len(m.bias)))).astype(np.float32)
        for name, m in maps(config).items()
    }
    modalities = {
        name: specs.ModalitySpec(shape=(dim,), likelihood="gaussian", scale=config.scale)
        for name, dim in zip(arrays, config.dims, strict=True)
    }
    return source.Source(specs=modalities, arrays=arrays, labels=(z[:, 0] > 0).astype(np.int32))


def posterior(linear_maps: dict[str, LinearMap], observed: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean `[B, D]` and covariance `[D, D]` of p(z | x_S), S the keys of `observed`, `[B, dim(x_j)]` each.

    Raises:
      ValueError: if nothing is observed.
    """
    if not observed:
        raise ValueError("Expected at least one observed modality, got none.")
    dim = next(iter(linear_maps.values())).weight.shape[1]
    precision = np.eye(dim)
    weighted = 0.0
    for name, x in observed.items():
        m = linear_maps[name]
        precision = precision + m.weight.T @ m.weight / m.scale**2
        weighted = weighted + (np.asarray(x, float) - m.bias) @ m.weight / m.scale**2
    covariance = np.linalg.inv(precision)
    return weighted @ covariance, covariance
