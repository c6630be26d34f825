"""The peer's side: MultiVae's JNF (https://github.com/AgatheSenellart/MultiVae, PyPI `multivae`), as its users run it.

Runs in an environment of its own (requirements.txt), which has no jax.
"""

import contextlib
import importlib.util
import os
import pathlib
import time
from collections.abc import Callable
from importlib import metadata

import numpy as np
import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseEncoder
from pythae.models.normalizing_flows.base import BaseNF, BaseNFConfig

from experiments.benchmarks import settings, targets


def _multivae():
    """Imports MultiVae; torchvision's compiled operators, which need CUDA's libraries and which it does not use, may be missing."""
    folder = pathlib.Path(importlib.util.find_spec("torchvision").submodule_search_locations[0])
    with contextlib.suppress(OSError):
        for path in folder.glob("_C*.so"):
            torch.ops.load_library(path)
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import multivae.data.datasets.base
    import multivae.models
    import multivae.models.base
    import multivae.models.nn.default_architectures
    import multivae.models.nn.mmnist
    import multivae.models.nn.svhn

    return multivae


multivae = _multivae()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def versions() -> dict[str, str]:
    """Returns what is measured."""
    return {name: metadata.version(name) for name in ("multivae", "pythae", "torch")}


def start(num_threads: int) -> None:
    """Settles threads and seeds."""
    torch.set_num_threads(num_threads)
    torch.manual_seed(0)


_BASELINES = {  # our name -> its name and options
    "jmvae": ("JMVAE", {"warmup": 1}),
    "mvae": ("MVAE", {"k": 1, "warmup": 1}),
    "mmvae": ("MMVAE", {"K": 1}),
    "mopoe": ("MoPoE", {}),
    "mvtcae": ("MVTCAE", {}),
    "mmvae_plus": ("MMVAEPlus", {"K": 1}),
}


class Split(BaseEncoder):
    """An encoder whose code is a shared half and a private one."""

    def __init__(self, whole, latent_dim):
        super().__init__()
        self.latent_dim = self.style_dim = latent_dim // 2
        self.whole = whole

    def forward(self, x):
        output = self.whole(x)
        (u, w), (log_u, log_w) = (output[name].chunk(2, dim=1) for name in ("embedding", "log_covariance"))
        return ModelOutput(embedding=u, style_embedding=w, log_covariance=log_u, style_log_covariance=log_w)


def build(name: str, model: str = "jnf"):
    """Returns JNF, or one of `settings.BASELINES`, on a setting."""
    setting = settings.SETTINGS[name]
    nn, latent = multivae.models.nn, setting.latent_dim
    makers = {
        "mlp": (nn.default_architectures.Encoder_VAE_MLP, nn.default_architectures.Decoder_AE_MLP),
        "svhn": (nn.svhn.Encoder_VAE_SVHN, nn.svhn.Decoder_VAE_SVHN),
        "polymnist": (nn.mmnist.EncoderConvMMNIST, nn.mmnist.DecoderConvMMNIST),
    }
    dims = {modality: (shape[2], *shape[:2]) for modality, shape in setting.shapes.items()}
    arguments = {m: multivae.models.base.BaseAEConfig(input_dim=dims[m], latent_dim=latent) for m in dims}
    encoders = {m: makers[setting.networks[m]][0](arguments[m]) for m in dims}
    decoders = {m: makers[setting.networks[m]][1](arguments[m]) for m in dims}
    peer, options = ("JNF", {"warmup": 1}) if model == "jnf" else _BASELINES[model]
    if model == "mmvae_plus":
        encoders = {m: Split(encoder, latent) for m, encoder in encoders.items()}
        options, latent = {**options, "modalities_specific_dim": latent // 2}, latent // 2
    config = getattr(multivae.models, f"{peer}Config")(
        n_modalities=len(dims),
        latent_dim=latent,
        input_dims=dims,
        decoders_dist=dict.fromkeys(dims, "laplace"),
        decoder_dist_params={m: {"scale": 0.75} for m in dims},
        **options,
    )
    return getattr(multivae.models, peer)(config, encoders=encoders, decoders=decoders).to(DEVICE)


def data(name: str, num: int):
    """Returns random images as its data sets hold them: floats in [0, 1]."""
    rng = np.random.default_rng(0)
    shapes = settings.SETTINGS[name].shapes
    images = {m: rng.random((num, shape[2], *shape[:2]), np.float32) for m, shape in shapes.items()}
    return multivae.data.datasets.base.MultimodalBaseDataset({m: torch.as_tensor(x).to(DEVICE) for m, x in images.items()})


def wait() -> None:
    """Waits for the accelerator, where there is one."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def prepare(row: settings.Row) -> Callable[[int], float]:
    """Returns a function (amount of work) -> seconds, ready to be timed."""
    return {"train": train, "draws": draws, "subset": subset, "ess": ess}[row.kind](row)


def train(row: settings.Row) -> Callable[[int], float]:
    """Optimiser steps: the loop of its trainer without loader, logs and callbacks, on batches that lie in memory."""
    model, size = build(row.setting, row.what if row.what in settings.BASELINES else "jnf"), row.examples_per_step
    everything = data(row.setting, 10 * size)
    epoch = 1 if row.what == "joint" else 2
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()

    def run(amount):
        wait()
        begun = time.perf_counter()
        for step in range(amount // size):
            rows = slice(step % 10 * size, (step % 10 + 1) * size)
            batch = multivae.data.datasets.base.MultimodalBaseDataset({m: x[rows] for m, x in everything.data.items()})
            loss = model(batch, epoch=epoch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        wait()
        return time.perf_counter() - begun

    return run


def draws(row: settings.Row) -> Callable[[int], float]:
    """Draws given the first modality, or the decoding of as many draws."""
    model, first = build(row.setting).eval(), next(iter(settings.SETTINGS[row.setting].shapes))
    observed = data(row.setting, row.peer_amount)

    def run(amount):
        wait()
        begun = time.perf_counter()
        with torch.no_grad():
            if row.what == "decode":
                z = torch.zeros(amount, model.latent_dim, device=DEVICE)
                for decoder in model.decoders.values():
                    decoder(z)
            else:
                model.encode(observed, cond_mod=first)
        wait()
        return time.perf_counter() - begun

    return run


def subset(row: settings.Row) -> Callable[[int], float]:
    """Draws of a subset's posterior by its chain; the work is counted in its iterations."""
    model = build(row.setting).eval()
    observed = data(row.setting, row.num_observations)
    names = list(observed.data)[: int(row.what.split("_")[0])]

    def run(amount):
        wait()
        begun = time.perf_counter()
        model._sample_from_poe_subset(
            names,
            observed.data,
            mcmc_steps=amount,
            n_lf=settings.LEAPFROG_STEPS,
            eps_lf=settings.STEP_SIZE,
            K=settings.NUM_DRAWS,
        )
        wait()
        return time.perf_counter() - begun

    return run


class Given(BaseEncoder):
    """An encoder that finds its Gaussian in the data `[B, 2 D]`: loc and log variance."""

    def __init__(self, dim):
        super().__init__()
        self.latent_dim = dim

    def forward(self, x):
        return ModelOutput(embedding=x[:, : self.latent_dim], log_covariance=x[:, self.latent_dim :])


class Identity(BaseNF):
    """No flow."""

    def forward(self, x):
        return ModelOutput(out=x, log_abs_det_jac=torch.zeros(len(x), device=x.device))


class OurFlow(BaseNF):
    """Our masked autoregressive flow (`jnf_jax.flows.maf`) with its trained weights."""

    def __init__(self, config, weights, expert):
        super().__init__(config)
        self._blocks = []
        for block in range(2):
            layers = range(len(targets.HIDDEN) + 1)
            self._blocks.append(
                [
                    [torch.as_tensor(weights[f"{expert}/{block}/{layer}/{part}"]).to(DEVICE) for part in ("kernel", "bias")]
                    for layer in layers
                ]
            )

    def forward(self, z):
        log_det = 0
        for *between, (kernel, bias) in self._blocks:
            x = targets.INPUT_BOUND * torch.tanh(z / targets.INPUT_BOUND)
            for k, b in between:
                x = torch.nn.functional.silu(x @ k + b)
            shift = x @ kernel[..., 0] + bias[:, 0]
            raw = torch.nn.functional.softplus(x @ kernel[..., 1] + bias[:, 1] - 2)
            log_scale = -targets.LOG_SCALE_BOUND * torch.tanh(raw / targets.LOG_SCALE_BOUND)
            z = ((z - shift) * torch.exp(-log_scale)).flip(1)
            log_det = log_det - log_scale.sum(1)
        return ModelOutput(out=z, log_abs_det_jac=log_det)


def ess(row: settings.Row) -> Callable[[int], float]:
    """Its default chain on a target of known law; `run.trace()` gives every state of every chain, `[N, C, B, D]`."""
    dim, num_experts = settings.TARGETS[row.setting]
    names = [f"x{i}" for i in range(num_experts)]
    loc, scale = targets.bases(row.setting)
    gaussians = {n: np.concatenate([loc[:, i], 2 * np.log(scale[:, i])], axis=1) for i, n in enumerate(names)}
    observed = {n: torch.as_tensor(values).to(DEVICE) for n, values in gaussians.items()}
    config = BaseNFConfig(input_dim=(dim,))
    if row.setting.startswith("curved"):
        weights = np.load(targets.weights_file(os.environ["BENCHMARK_FILES"]))
        flows = {n: OurFlow(config, weights, i) for i, n in enumerate(names)}
    else:
        flows = {n: Identity(config) for n in names}
    model_config = multivae.models.JNFConfig(
        n_modalities=num_experts, latent_dim=dim, input_dims=dict.fromkeys(names, (2 * dim,)), warmup=1
    )
    model = multivae.models.JNF(model_config, encoders={n: Given(dim) for n in names}, flows=flows)
    model.eval().to(DEVICE)
    density, states = model._compute_poe_posterior, []

    def recording(subset, z, *arguments, **options):
        states.append(z.detach())
        return density(subset, z, *arguments, **options)

    model._compute_poe_posterior = recording

    def run(amount):
        states.clear()
        wait()
        begun = time.perf_counter()
        model._sample_from_poe_subset(
            names,
            observed,
            mcmc_steps=settings.ITERATIONS,
            n_lf=settings.LEAPFROG_STEPS,
            eps_lf=settings.STEP_SIZE,
            K=settings.NUM_DRAWS,
        )
        wait()
        return time.perf_counter() - begun

    def trace():  # the density is asked for once before an iteration and once a leapfrog step
        first = torch.stack(states[:: settings.LEAPFROG_STEPS + 1])
        return first.reshape(settings.ITERATIONS, settings.NUM_DRAWS, -1, dim).cpu().numpy()

    run.trace = trace
    return run
