"""Products of experts whose law is known, the same on both sides: what effective draws are counted on.

`gaussian_D`: Gaussian experts, no flow. `curved_D`: flows trained on bent Gaussians; the law is known by long chains.
"""

import pathlib

import numpy as np

from experiments.benchmarks import settings

NUM_OBSERVATIONS = 20
HIDDEN = (128, 128, 128)  # of the trained flows
INPUT_BOUND, LOG_SCALE_BOUND = 2.5, 4.0
BASE_SCALE = 0.5


def bases(target: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the experts' base Gaussians: loc and scale `[B, M, D]`."""
    dim, num_experts = settings.TARGETS[target]
    rng = np.random.default_rng(1)
    shape = (NUM_OBSERVATIONS, num_experts, dim)
    if target.startswith("curved"):
        return (0.3 * rng.normal(size=shape)).astype(np.float32), np.full(shape, BASE_SCALE, np.float32)
    return (0.5 * rng.normal(size=shape)).astype(np.float32), rng.uniform(0.3, 0.8, shape).astype(np.float32)


def exact_moments(target: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and variance `[B, D]` of a product of Gaussians over p(z)^(M-1)."""
    loc, scale = bases(target)
    precision = (scale**-2.0).sum(1) - (loc.shape[1] - 1)
    return (loc * scale**-2.0).sum(1) / precision, 1 / precision


def bent(rng: np.random.Generator, num: int, dim: int, bend: float) -> np.ndarray:
    """Returns `[num, D]` draws of a Gaussian of scale 0.5 whose odd coordinates follow the squares of the even ones."""
    z = BASE_SCALE * rng.normal(size=(num, dim))
    z[:, 1::2] = BASE_SCALE * z[:, 1::2] + bend * (z[:, ::2] ** 2 - BASE_SCALE**2)
    return z.astype(np.float32)


def rotated(rng: np.random.Generator, num: int, dim: int, bend: float = 0.5) -> np.ndarray:
    """Returns `[num, D]` draws of `bent` under a random rotation: every coordinate depends on all before it."""
    rotation, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    return bent(rng, num, dim, bend) @ rotation.astype(np.float32)


def weights_file(folder: str) -> pathlib.Path:
    """Returns where the trained flows lie: masked kernels and biases, `expert/block/layer/kernel` and `../bias`."""
    return pathlib.Path(folder) / "curved_flows.npz"
