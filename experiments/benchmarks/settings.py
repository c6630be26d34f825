"""What is measured, in words that both sides understand: no array library is imported here.

A row is named `kind/setting/what`. Both sides build the setting's model untrained and with the published networks, and are asked for
some amount of work, in the row's unit of work; the answer is the time it took.
"""

import dataclasses
import json
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Setting:
    """A model on a data set's shapes.

    Attributes:
      shapes: modality -> (height, width, channels).
      latent_dim: D.
      networks: modality -> `mlp` (two hidden layers of 512 in the encoder, one in the decoder), `svhn` (4x4 convolutions of 32, 64 and
        128 channels) or `polymnist` (3x3 convolutions of 32, 64 and 128 channels and a dense layer of width D).
      batch_size: of training.
    """

    shapes: Mapping[str, tuple[int, int, int]]
    latent_dim: int
    networks: Mapping[str, str]
    batch_size: int = 128


def _mnist_svhn(svhn: str) -> Setting:
    shapes = {"mnist": (28, 28, 1), "svhn": (32, 32, 3)}
    return Setting(shapes=shapes, latent_dim=20, networks={"mnist": "mlp", "svhn": svhn})


def _polymnist(latent_dim: int) -> Setting:
    names = [f"m{i}" for i in range(5)]
    return Setting(shapes=dict.fromkeys(names, (28, 28, 3)), latent_dim=latent_dim, networks=dict.fromkeys(names, "polymnist"))


SETTINGS = {
    "mnist_svhn_mlp": _mnist_svhn("mlp"),
    "mnist_svhn_conv": _mnist_svhn("svhn"),
    "polymnist_32": _polymnist(32),
    "polymnist_512": _polymnist(512),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One workload.

    Attributes:
      name: `kind/setting/what`.
      unit: of work; a rate is so many of it a second.
      amount: work asked for at once from us.
      peer_amount: work asked for at once from the peer; less where its cost is linear in it and it is slow; 0 where it has nothing like it.
      repeats: times that each side is asked, in turns.
      batch_size: of training; None: the setting's.
      precision: what our networks compute in.
      num_observations: behind subset posteriors.
    """

    name: str
    unit: str
    amount: int
    peer_amount: int
    repeats: int = 5
    batch_size: int | None = None
    precision: str = "float32"
    num_observations: int = 100

    @property
    def kind(self) -> str:
        """`train`, `draws`, `subset` or `ess`."""
        return self.name.split("/")[0]

    @property
    def setting(self) -> str:
        """Name of the setting, or of the target for `ess`."""
        return self.name.split("/")[1]

    @property
    def what(self) -> str:
        """What of it."""
        return self.name.split("/")[2]

    @property
    def examples_per_step(self) -> int:
        """Size of a batch of training."""
        return self.batch_size or SETTINGS[self.setting].batch_size


# Models with one stage, whose rows are named after them. Mixtures take one importance sample, and MVAE one random subset; MMVAE+ has half
# of the setting's latent dimensions for each of its codes.
BASELINES = ("jmvae", "mvae", "mmvae", "mopoe", "mvtcae", "mmvae_plus")
STEPS_PER_CALL = 10
MANY = (5_000, 10_000)  # observations
NUM_DRAWS = 10  # of each observation behind subset posteriors
ITERATIONS, LEAPFROG_STEPS, STEP_SIZE = 100, 10, 0.01  # the reference's chain, and the peer's default
TARGET_DRAWS = 4 * 500  # of each observation of an `ess` target, by us


def rows() -> list[Row]:
    """Returns every row that is timed side by side."""
    train = [
        Row(f"train/{setting}/{stage}", "samples", 20 * 128, 10 * 128, repeats=7)
        for setting in SETTINGS
        for stage in ("joint", "experts")
    ]
    train += [Row(f"train/polymnist_32/{model}", "samples", 10 * 128, 10 * 128, repeats=5) for model in BASELINES]
    # Trained flows take us more passes to invert; the peer takes as many as there are dimensions, whatever its flow.
    draws = [
        Row("draws/mnist_svhn_conv/1", "draws", 1_000, 1_000, repeats=25),
        Row("draws/polymnist_32/1", "draws", 1_000, 1_000, repeats=25),
        Row("draws/polymnist_32/1_trained", "draws", 1_000, 1_000, repeats=25),
        Row("draws/polymnist_512/1", "draws", 1_000, 1_000, repeats=3),
        Row("draws/polymnist_512/1_trained", "draws", 1_000, 1_000, repeats=3),
        Row("draws/polymnist_512/decode", "draws", 1_000, 1_000),
    ]
    # The peer has one chain, its own; we are asked for that one (`reference`) and for our default's draws (`default`).
    sizes = [("mnist_svhn_mlp", (2,)), ("polymnist_32", (2, 3, 4)), ("polymnist_512", (2,))]
    subset = [
        Row(f"subset/{setting}/{size}_{chain}", "chains", 1, ITERATIONS // 10, repeats=2)
        for setting, each in sizes
        for size in each
        for chain in ("reference", "default")
    ]
    # our default's chains on the published product, for the price of our rule
    subset += [Row(f"subset/polymnist_32/{size}_published", "chains", 1, 0, repeats=3) for size in (2, 4)]
    # in chunks, so that memory should not grow with the observations; the peer would take hours
    subset += [Row(f"subset/polymnist_32/2_default_{num}", "chains", 1, 0, repeats=1, num_observations=num) for num in MANY]
    ess = [Row(f"ess/{target}/default", "runs", 1, 1, repeats=3) for target in TARGETS]
    return train + draws + subset + ess


def find(name: str) -> Row:
    """Returns the row of a name, or of fields as JSON."""
    if name.startswith("{"):
        return Row(**json.loads(name))
    return next(row for row in rows() if row.name == name)


TARGETS = {"gaussian_20": (20, 2), "gaussian_32": (32, 3), "curved_20": (20, 2)}  # dimension, number of experts
