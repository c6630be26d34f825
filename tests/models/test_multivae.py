"""Objectives equal MultiVae's, on the same weights, data and noise. Needs `multivae`: `make test-multivae`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax import configs, specs
from jnf_jax.models import cmvae, crmvae, cvae, dmvae, jmvae, mhvae, mmvae, mmvae_plus, mopoe, mvae, mvtcae, nexus, telbo
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
    "telbo": (telbo.Config(**LINEAR, joint_hidden=(), wide_experts=True), "TELBO", {"warmup": 2}),
    "dmvae": (
        dmvae.Config(**LINEAR, private_dim=1, beta=1.5, private_beta=0.7),
        "DMVAE",
        {
            "beta": 1.5,
            "modalities_specific_dim": dict.fromkeys("abc", 1),
            "modalities_specific_betas": dict.fromkeys("abc", 0.7),
        },
    ),
    "crmvae": (crmvae.Config(**LINEAR, beta=1.5), "CRMVAE", {"beta": 1.5}),
    "cmvae": (
        cmvae.Config(**LINEAR, private_dim=1, num_clusters=3, beta=1.5, num_importance=3, family="gaussian"),
        "CMVAE",
        {
            "beta": 1.5,
            "K": 3,
            "prior_and_posterior_dist": "normal",
            "loss": "iwae_looser",
            "modalities_specific_dim": 1,
            "number_of_clusters": 3,
        },
    ),
}
WITH_JOINT = ("jmvae", "telbo")
ADD_EXAMPLES_UP = ("mmvae", "mmvae_plus", "crmvae", "cmvae", "mhvae")  # MultiVae's loss of these is no mean over them


@pytest.fixture(scope="module")
def library():
    reason = "MultiVae is not installed: objectives are NOT compared with its own"
    pytest.importorskip("multivae", reason=reason)
    from experiments.benchmarks import theirs as peer  # imports it also where torchvision's compiled operators are missing

    return peer.multivae.models


def set_up(config, monkeypatch):
    """Our model, its parameters in float64 and data; every draw of noise is NOISE from here on."""
    model = configs.build(config, MODALITIES)
    params = jax.tree.map(lambda leaf: np.array(leaf, np.float64), jax.jit(model.init)(jax.random.key(0)))
    rng = np.random.default_rng(0)
    data = {n: rng.normal(size=(NUM, *spec.shape)) for n, spec in MODALITIES.items()}
    monkeypatch.setattr(jax.random, "normal", lambda key, shape=(), dtype=float: jnp.full(shape, NOISE, dtype))
    return model, params, data


@pytest.mark.parametrize("name", PEERS)
def test_the_objective_is_that_of_multivae(name, library, monkeypatch):
    config, peer, options = PEERS[name]
    model, params, data = set_up(config, monkeypatch)
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
    joint = {"joint_encoder": Joint()} if name in WITH_JOINT else {}
    model = getattr(library, peer)(
        config, encoders={n: Encoder(n) for n in data}, decoders={n: Decoder(n) for n in data}, **joint
    ).double()
    if name == "cmvae":
        model._pc_params.data = tensor(params["prior"]["logits"])
        for mean, loc in zip(model.mean_clusters, params["prior"]["loc"], strict=True):
            mean.data = tensor(loc[None])
    batch = datasets.MultimodalBaseDataset({n: tensor(x) for n, x in data.items()})
    loss = float(model(batch, epoch=2).loss)
    return loss / NUM if name in ADD_EXAMPLES_UP else loss


def test_telbos_second_stage_is_that_of_multivae_but_for_the_log_variance_in_its_divergence(library, monkeypatch):
    """MultiVae 1.0.3 has the joint encoder's log variance there, in place of the unimodal one's."""
    model, params, data = set_up(PEERS["telbo"][0], monkeypatch)
    ours, _ = model.stages[1].loss(params, jax.random.key(0), data)
    found = theirs(library, monkeypatch, "TELBO", {"warmup": 1}, params, data, "telbo")
    log_variance = lambda head, x: (
        2
        * np.log(
            np.logaddexp(0, x @ head["params"]["scale"]["kernel"] + head["params"]["scale"]["bias"] + np.log(np.e - 1)) + 1e-4
        )
    )
    joint = log_variance(params["joint"]["head"], np.concatenate(list(data.values()), axis=1))
    each = sum(joint - log_variance(params["experts"]["heads"][n], x) for n, x in data.items())
    np.testing.assert_allclose(ours, found + 0.5 * each.sum(1).mean(), rtol=1e-6)


@pytest.fixture
def torch_side(library, monkeypatch):
    """(base class, function) -> a network of MultiVae's that computes it; functions on our parameters; MultiVae's settings and batches."""
    import types

    import multivae.data.datasets.base as datasets
    import torch
    from pythae.models.base.base_utils import ModelOutput

    tensor = lambda x: torch.as_tensor(np.array(x))
    dense = lambda p, x: x @ tensor(p["kernel"]) + tensor(p["bias"])

    def head(p, x):
        raw = dense(p["params"]["scale"], x) + float(np.log(np.e - 1))
        log_variance = 2 * torch.log(torch.nn.functional.softplus(raw) + 1e-4)
        return ModelOutput(embedding=dense(p["params"]["loc"], x), log_covariance=log_variance)

    def network(base, function):
        class Network(base):
            def __init__(self):
                super().__init__()
                self.latent_dim = DIM

            def forward(self, *x):
                return function(*x)

        return Network()

    draw = lambda self, shape=(): self.loc + NOISE * self.scale + torch.zeros((*shape, *self.loc.shape), dtype=self.loc.dtype)
    monkeypatch.setattr(torch.distributions.Normal, "rsample", draw)
    return types.SimpleNamespace(
        dense=dense,
        head=head,
        network=network,
        decoded=lambda p, z: ModelOutput(reconstruction=dense(p["params"]["Dense_0"], z)),
        embedded=lambda p, x: ModelOutput(embedding=dense(p, x)),
        concatenate=lambda x: torch.cat(list(x.values()), dim=1),
        batch=lambda data: datasets.MultimodalBaseDataset({n: tensor(x) for n, x in data.items()}),
        module=torch.nn.Identity,
        stack=lambda *x: torch.cat(x, dim=1),
        settings={
            "n_modalities": len(MODALITIES),
            "latent_dim": DIM,
            "input_dims": {n: spec.shape for n, spec in MODALITIES.items()},
            "decoders_dist": dict.fromkeys(MODALITIES, "normal"),
            "decoder_dist_params": {n: {"scale": SCALE} for n in MODALITIES},
            "uses_likelihood_rescaling": False,
        },
    )


def of_each(make):
    return {n: make(n) for n in MODALITIES}


def test_the_objective_of_nexus_is_that_of_multivae(library, torch_side, monkeypatch):
    from multivae.models.nn.base_architectures import BaseDecoder, BaseEncoder

    weights = {"private_dim": DIM, "message_dim": 3, "top_beta": 0.7, "beta": 1.5, "gamma": 0.6}
    config = nexus.Config(**LINEAR, **weights, top_hidden=(), top_scale=1.0, dropout=0.0)
    model, params, data = set_up(config, monkeypatch)
    ours, _ = model.stages[0].loss(params, jax.random.key(0), data)
    side, top = torch_side, params["top"]
    own = lambda part, n: jax.tree.map(lambda leaf: leaf[list(MODALITIES).index(n)], top[part])
    peer = library.Nexus(
        library.NexusConfig(
            **side.settings,
            modalities_specific_dim=dict.fromkeys(MODALITIES, DIM),
            bottom_betas=dict.fromkeys(MODALITIES, 1.5),
            gammas=dict.fromkeys(MODALITIES, 0.6),
            msg_dim=3,
            top_beta=0.7,
            warmup=1,
        ),
        encoders=of_each(lambda n: side.network(BaseEncoder, lambda x: side.head(params["bottom"]["heads"][n], x))),
        decoders=of_each(lambda n: side.network(BaseDecoder, lambda z: side.decoded(params["decoders"][n], z))),
        top_encoders=of_each(
            lambda n: side.network(BaseEncoder, lambda z: side.embedded(own("messages", n)["params"]["Dense_0"], z))
        ),
        joint_encoder=side.network(BaseEncoder, lambda h: side.head(top["head"], h)),
        top_decoders=of_each(lambda n: side.network(BaseDecoder, lambda u: side.decoded(own("means", n), u))),
    ).double()
    np.testing.assert_allclose(ours, float(peer(side.batch(data), epoch=2).loss), rtol=1e-6)


def test_the_objective_of_mhvae_is_that_of_multivae(library, torch_side, monkeypatch):
    from multivae.models.nn.base_architectures import BaseDecoder, BaseEncoder

    config = mhvae.Config(**LINEAR, beta=1.5, skip_dim=3, block_hidden=(), num_subsets=None)
    model, params, data = set_up(config, monkeypatch)
    ours, _ = model.stages[0].loss(params, jax.random.key(0), data)
    side, level = torch_side, params["top_down"]["level_1"]
    blocks = params["bottom_up"]["blocks"]
    skip = lambda n: blocks[n]["skips"]["level_1"]["skip"]["params"]
    peer = library.MHVAE(
        library.MHVAEConfig(**side.settings, n_latent=2, beta=1.5),
        encoders=of_each(lambda n: side.network(BaseEncoder, lambda x: side.embedded(skip(n), x))),
        decoders=of_each(lambda n: side.network(BaseDecoder, lambda z: side.decoded(params["decoders"][n], z))),
        bottom_up_blocks=of_each(lambda n: [side.network(BaseEncoder, lambda x: side.head(blocks[n]["deepest"]["head"], x))]),
        top_down_blocks=[side.module()],
        posterior_blocks=[side.network(BaseEncoder, lambda x: side.head(level["head"], x))],
        prior_blocks=[side.network(BaseEncoder, lambda h: side.head(level["prior"], h))],
    ).double()
    np.testing.assert_allclose(ours, float(peer(side.batch(data)).loss) / NUM, rtol=1e-6)


def test_the_objective_of_the_cvae_is_that_of_multivae_where_the_condition_is_fixed(library, torch_side, monkeypatch):
    import torch
    from multivae.models.nn.base_architectures import BaseConditionalDecoder, BaseJointEncoder

    config = cvae.Config(**LINEAR, joint_hidden=(), beta=1.5, condition_dim=3, condition_hidden=())
    _, params, data = set_up(config, monkeypatch)
    given = np.repeat([[False], [True], [True]], NUM, axis=1)  # a, given b and c
    ours, _ = cvae.loss(cvae.make_parts(config, MODALITIES), params, jax.random.key(0), data, given=given)
    side, condition = torch_side, params["condition"]
    total = lambda x: sum(side.dense(condition["embeddings"][n]["params"], x[n]) for n in "bc")
    peer = library.CVAE(
        library.CVAEConfig(
            conditioning_modalities=["b", "c"],
            main_modality="a",
            latent_dim=DIM,
            beta=1.5,
            decoder_dist="normal",
            decoder_dist_params={"scale": SCALE},
        ),
        encoder=side.network(BaseJointEncoder, lambda x: side.head(params["joint"]["head"], side.concatenate(x))),
        decoder=side.network(BaseConditionalDecoder, lambda z, _: side.decoded(params["decoders"]["a"], z)),
        prior_network=side.network(BaseJointEncoder, lambda x: side.head(condition["head"], torch.relu(total(x)))),
    ).double()
    np.testing.assert_allclose(ours, float(peer(side.batch(data)).loss), rtol=1e-6)
