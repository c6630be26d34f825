"""Objectives equal MultiVae's, on the same weights, data and noise. Needs `multivae` (experiments/benchmarks/requirements.txt)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax import configs, specs
from jnf_jax.models import jmvae, mmvae, mmvae_plus, mopoe, mvae, mvtcae
from jnf_jax.networks import mlp

pytestmark = pytest.mark.slow
NOISE, SCALE, NUM, DIM = 0.5, 0.8, 7, 2  # every draw of noise is NOISE; 7 examples, one for each of MoPoE's subsets
MODALITIES = {name: specs.ModalitySpec(shape=(dim,), scale=SCALE) for name, dim in zip("abc", (2, 3, 2), strict=True)}
LINEAR = {"latent_dim": DIM, "network": mlp.Config(hidden=())}
PEERS = {  # ours, MultiVae's name, its options
    "jmvae": (
        jmvae.Config(**LINEAR, joint_hidden=(), beta=1.5, alpha=0.3, wide_experts=True),
        "JMVAE",
        {"beta": 1.5, "alpha": 0.3, "warmup": 1},
    ),
    "mvae": (
        mvae.Config(**LINEAR, beta=1.5, num_subsets=0),
        "MVAE",
        {"beta": 1.5, "k": 0, "warmup": 1, "use_subsampling": True},
    ),
    "mvtcae": (mvtcae.Config(**LINEAR, beta=1.5, alpha=0.3), "MVTCAE", {"beta": 1.5, "alpha": 0.3}),
    "mopoe": (mopoe.Config(**LINEAR, beta=1.5, prior_in_full=True), "MoPoE", {"beta": 1.5}),
    "mmvae": (
        mmvae.Config(**LINEAR, num_importance=3, family="gaussian"),  # MultiVae 1.0.3 does not use its beta here
        "MMVAE",
        {"K": 3, "prior_and_posterior_dist": "normal", "loss": "iwae_looser"},
    ),
    "mmvae_plus": (
        mmvae_plus.Config(**LINEAR, private_dim=1, beta=1.5, num_importance=3, family="gaussian"),
        "MMVAEPlus",
        {"beta": 1.5, "K": 3, "prior_and_posterior_dist": "normal", "loss": "iwae_looser", "modalities_specific_dim": 1},
    ),
}


@pytest.fixture(scope="module")
def library():
    torch = pytest.importorskip("torch", reason="MultiVae is not installed: objectives are NOT compared with its own")
    fragment = torch.library.Library("torchvision", "FRAGMENT")  # its compiled operators, which are not used, may be missing
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            fragment.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield pytest.importorskip("multivae.models", reason="MultiVae is not installed: objectives are NOT compared with its own")
    del fragment


@pytest.mark.parametrize("name", PEERS)
def test_the_objective_is_that_of_multivae(name, library, monkeypatch):
    config, peer, options = PEERS[name]
    model = configs.build(config, MODALITIES)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.jit(model.init)(jax.random.key(0)))
    rng = np.random.default_rng(0)
    data = {n: rng.normal(size=(NUM, *spec.shape)) for n, spec in MODALITIES.items()}
    constant = lambda key, shape=(), dtype=float: jnp.full(shape, NOISE, dtype)
    monkeypatch.setattr(jax.random, "normal", constant)
    monkeypatch.setattr(jax.random, "categorical", lambda key, logits, axis: jnp.arange(NUM))  # MultiVae's parts of a batch
    ours, _ = model.stages[0].loss(params, jax.random.key(0), data)
    np.testing.assert_allclose(ours, theirs(library, monkeypatch, peer, options, params, data, name), rtol=1e-6)


def theirs(library, monkeypatch, peer, options, params, data, name):
    """The peer's loss, a mean over examples; its epsilons allow for a relative difference of 1e-7 or so."""
    import multivae.data.datasets.base as datasets
    import torch
    from multivae.models.nn import base_architectures as bases
    from pythae.models.base.base_utils import ModelOutput

    tensor = lambda x: torch.as_tensor(np.array(x))
    dense = lambda p, x: x @ tensor(p["kernel"]) + tensor(p["bias"])
    draw = lambda self, shape=(): self.loc + NOISE * self.scale + torch.zeros((*shape, *self.loc.shape), dtype=self.loc.dtype)
    monkeypatch.setattr(torch.distributions.Normal, "rsample", draw)
    private = options.get("modalities_specific_dim", 0)

    def output(head, x):
        loc, raw = dense(head["loc"], x), dense(head["scale"], x)
        log_variance = 2 * torch.log(torch.nn.functional.softplus(raw + float(np.log(np.e - 1))) + 1e-4)
        cut = lambda v: (v[..., :DIM], v[..., DIM:])
        if not private:
            return ModelOutput(embedding=loc, log_covariance=log_variance)
        (u, w), (log_u, log_w) = cut(loc), cut(log_variance)
        return ModelOutput(embedding=u, style_embedding=w, log_covariance=log_u, style_log_covariance=log_w)

    class Encoder(bases.BaseEncoder):
        def __init__(self, modality):
            super().__init__()
            self.latent_dim, self.modality = DIM, modality

        def forward(self, x):
            return output(params["experts"]["heads"][self.modality]["params"], x)

    class Joint(bases.BaseJointEncoder):
        def __init__(self):
            super().__init__()
            self.latent_dim = DIM

        def forward(self, x):
            return output(params["joint"]["head"]["params"], torch.cat([x[n] for n in data], dim=1))

    class Decoder(bases.BaseDecoder):
        def __init__(self, modality):
            super().__init__()
            self.latent_dim, self.modality = DIM, modality

        def forward(self, z):
            return ModelOutput(reconstruction=dense(params["decoders"][self.modality]["params"]["Dense_0"], z))

    config = getattr(library, f"{peer}Config")(
        n_modalities=len(data),
        latent_dim=DIM,
        input_dims={n: (x.shape[1],) for n, x in data.items()},
        decoders_dist=dict.fromkeys(data, "normal"),
        decoder_dist_params={n: {"scale": SCALE} for n in data},
        uses_likelihood_rescaling=False,
        **options,
    )
    joint = {"joint_encoder": Joint()} if name == "jmvae" else {}
    model = getattr(library, peer)(
        config, encoders={n: Encoder(n) for n in data}, decoders={n: Decoder(n) for n in data}, **joint
    ).double()
    batch = datasets.MultimodalBaseDataset({n: tensor(x) for n, x in data.items()})
    loss = float(model(batch, epoch=2).loss)
    return loss / NUM if name in ("mmvae", "mmvae_plus") else loss  # these two add examples up
