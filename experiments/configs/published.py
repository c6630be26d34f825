"""The settings of the published runs, and sizes that two CPU cores train in minutes (`--quick`).

What differs from the published code here as everywhere: experts no wider than the prior, flows that do not widen, softplus scales, a cosine schedule in place of a
constant rate (PolyMNIST with convolutions keeps its plateau), chains that adapt (docs/explanation/differences.md). A published run of E epochs is so many steps of its batch.

Assumed, since the published settings at hand do not tell: for Translated PolyMNIST the residual networks, the batch, the experts' epochs and all of
DCCA's settings; for MHD the networks; the batches of contrastive stages other than PolyMNIST's; and all settings of the models that JNF is compared with (`baseline`).
"""

import dataclasses
import math
from collections.abc import Mapping

from experiments import experiment
from jnf_jax import configs
from jnf_jax.data import missing, polymnist_family
from jnf_jax.flows import maf
from jnf_jax.metrics import classifiers
from jnf_jax.models import jnf
from jnf_jax.networks import conv, mlp, resnet
from jnf_jax.projectors import contrastive, dcca
from jnf_jax.training import fit

_QUICK_NETWORK = conv.Config(channels=(16, 32), hidden=128, decoder_hidden=128)
_QUICK_WIDER_NETWORK = conv.Config(channels=(16, 32), hidden=256, decoder_hidden=512)
_QUICK_FLOW = maf.Config(hidden=(32, 32))
_QUICK_SCALE = 0.4


def stage(*, epochs: int, num_train: int, batch_size: int, **options) -> fit.Config:
    """Returns the settings of a stage of so many epochs; a validation about every epoch."""
    per_epoch = num_train / batch_size
    calls = max(1, round(per_epoch / fit.Config().steps_per_call))
    return fit.Config(num_steps=math.ceil(epochs * per_epoch), batch_size=batch_size, calls_per_validation=calls, **options)


def polymnist(data: configs.Component) -> experiment.Config:
    """PolyMNIST with convolutions: latent 512, 400 + 200 epochs of 256, plateau schedule with patience 30."""
    training = {"num_train": 54_000, "batch_size": 256, "schedule": "plateau", "plateau_patience": 30}
    return experiment.Config(
        data=data,
        model=jnf.Config(
            latent_dim=512, network=conv.Config(channels=(32, 64, 128), kernel=3, hidden=512, decoder_hidden=None)
        ),
        training={"joint": stage(epochs=400, **training), "experts": stage(epochs=200, **training)},
    )


def polymnist_resnet(data: configs.Component) -> experiment.Config:
    """PolyMNIST with residual networks: latent 190, beta 2.5, 200 + 200 epochs of 128."""
    training = {"epochs": 200, "num_train": 54_000, "batch_size": 128}
    return experiment.Config(
        data=data,
        model=jnf.Config(latent_dim=190, beta=2.5, network=resnet.Config()),
        training={"joint": stage(**training), "experts": stage(**training)},
    )


def translated_polymnist(data: configs.Component) -> experiment.Config:
    """Translated PolyMNIST: latent 200, beta 1, 150 epochs of stage 1, residual networks."""
    training = {"epochs": 150, "num_train": 54_000, "batch_size": 128}
    return experiment.Config(
        data=data,
        model=jnf.Config(latent_dim=200, network=resnet.Config()),
        training={"joint": stage(**training), "experts": stage(**training)},
    )


def mnist_svhn(data: configs.Component, cluttered: str) -> experiment.Config:
    """MNIST-SVHN: latent 20, beta 2.5, rescaled likelihoods, 100 + 100 epochs of 128; an MLP of 400 and convolutions of 4x4."""
    training = {"epochs": 100, "num_train": 252_000, "batch_size": 128}
    svhn = conv.Config(channels=(32, 64, 128), kernel=4, hidden=None, decoder_hidden=None)
    networks = {"mnist": mlp.Config(hidden=(400,)), cluttered: svhn}
    return experiment.Config(
        data=data,
        model=jnf.Config(latent_dim=20, beta=2.5, rescale=True, networks=networks),
        training={"joint": stage(**training), "experts": stage(**training)},
    )


def mhd(data: configs.Component) -> experiment.Config:
    """MHD: latent 64, beta 0.5, rescaled Gaussian likelihoods, 200 + 100 epochs of 64."""
    training = {"num_train": 45_000, "batch_size": 64}
    networks = {"trajectory": mlp.Config(hidden=(512, 512))}
    return experiment.Config(
        data=data,
        model=jnf.Config(latent_dim=64, beta=0.5, rescale=True, network=conv.Config(), networks=networks),
        training={"joint": stage(epochs=200, **training), "experts": stage(epochs=100, **training)},
        classifiers=classifiers.Config(networks={"trajectory": mlp.Config(hidden=(128, 128))}),
    )


def contrastive_variant(
    config: experiment.Config, *, dim: int, epochs: int, num_train: int, batch_size: int = 256
) -> experiment.Config:
    """JNF-CL on top of a JNF: the same but for projectors trained by contrast."""
    return _variant(config, contrastive.Config(dim=dim), stage(epochs=epochs, num_train=num_train, batch_size=batch_size))


def dcca_variant(
    config: experiment.Config, *, dim: int, epochs: int, num_train: int, batch_size: int = 800, **options
) -> experiment.Config:
    """JNF-DCCA on top of a JNF: the same but for projectors trained by DCCA, whose batches are large."""
    training = stage(epochs=epochs, num_train=num_train, batch_size=batch_size, **options)
    return _variant(config, dcca.Config(dim=dim), training)


def _variant(config: experiment.Config, projector: configs.Component, training: fit.Config) -> experiment.Config:
    model = dataclasses.replace(config.model, projector=projector)
    return dataclasses.replace(config, model=model, training={"projector": training, **config.training})


def baseline(
    config: experiment.Config,
    model: type[configs.Component],
    *,
    two_stages: bool = False,
    learning_rate: float | None = None,
    **options,
) -> experiment.Config:
    """Returns another model on the data, networks, latent dimension, beta and rescaling of a JNF, and on its budget of steps.

    Its one stage has the settings of JNF's stage 1 and as many steps as JNF's stages 1 and 2 together; two have JNF's. The published settings at hand do not
    tell the baselines' own; what a paper says of its model stands in the experiment's file.

    Args:
      config: JNF's experiment.
      model: the model's Config.
      two_stages: whether it has two, `joint` and `experts`.
      learning_rate: of its first stage where it is not JNF's.
      **options: fields of it where it differs.
    """
    shared = {
        name: getattr(config.model, name)
        for name in ("latent_dim", "beta", "rescale", "scale_transform", "network", "networks", "precision")
    }
    if any(field.name == "joint_hidden" for field in dataclasses.fields(model)):
        shared["joint_hidden"] = config.model.joint_hidden
    training = {name: config.training[name] for name in ("joint", "experts")}
    if learning_rate is not None:
        training["joint"] = dataclasses.replace(training["joint"], learning_rate=learning_rate)
    if not two_stages:
        steps = sum(settings.num_steps for settings in training.values())
        training = {"vae": dataclasses.replace(training["joint"], num_steps=steps)}
    return dataclasses.replace(config, model=model(**{**shared, **options}), training=training)


def baseline_with_private_codes(config: experiment.Config, model: type[configs.Component], **options) -> experiment.Config:
    """Returns `baseline` of a model whose decoders see a shared and a private code, with half of JNF's latent dimensions each.

    Args:
      config: JNF's experiment.
      model: the model's Config.
      **options: fields of it where it differs.
    """
    half = config.model.latent_dim // 2
    return baseline(config, model, **{"latent_dim": half, "private_dim": half, **options})


def incomplete(config: experiment.Config, *, fraction: float, complete_only: bool = False) -> experiment.Config:
    """Returns an experiment whose training and validation examples lack modalities at random; a JNF is told so.

    Args:
      config: the experiment on complete data.
      fraction: of the modalities that are missing.
      complete_only: whether it trains on the examples that lack none.
    """
    model = config.model
    if isinstance(model, jnf.Config) and not complete_only:
        model = dataclasses.replace(model, incomplete=True)
    data = missing.Config(data=config.data, fraction=fraction, complete_only=complete_only)
    return dataclasses.replace(config, data=data, model=model)


def quick(
    config: experiment.Config,
    *,
    latent_dim: int = 24,
    beta: float | None = None,
    joint_steps: int = 6_000,
    networks: Mapping[str, configs.Component] | None = None,
) -> experiment.Config:
    """Returns an experiment at a size for two CPU cores: small convolutions, a small latent space, some thousand steps.

    Pictures have a Gaussian likelihood of standard deviation 0.4 in place of the Laplace of scale 0.75, which learns digits long after so
    few steps (`polymnist_family.Config`).

    Args:
      config: the published one.
      latent_dim: D.
      beta: in place of the config's.
      joint_steps: steps of stage 1.
      networks: modality -> network where not the small convolutions.
    """
    training = {
        "joint": fit.Config(num_steps=joint_steps, batch_size=64, learning_rate=2e-3),
        "experts": fit.Config(num_steps=4_000),
    }
    if "projector" in config.training:
        batch = min(max(config.training["projector"].batch_size, 256), 500)
        training = {"projector": fit.Config(num_steps=1_500, batch_size=batch), **training}
    model = dataclasses.replace(
        config.model,
        latent_dim=latent_dim,
        beta=config.model.beta if beta is None else beta,
        network=_QUICK_NETWORK,
        networks=networks or {},
        flow=_QUICK_FLOW,
    )
    data = config.data
    if isinstance(data, polymnist_family.Config):
        data = dataclasses.replace(data, likelihood="gaussian", scale=_QUICK_SCALE)
    return dataclasses.replace(config, data=data, model=model, training=training)


def quick_annealed(config: experiment.Config) -> experiment.Config:
    """Returns an experiment as `quick` does, for data whose examples differ in more than 24 dimensions can tell.

    Stage 1 begins at a beta of 0.05 and comes to 0.5 over the first half of its 12,000 steps: at 1 from the first step, 64 dimensions
    learnt more slowly than 24 (docs/results/coherence.md).
    """
    config = quick(config, latent_dim=64, beta=0.5, joint_steps=12_000)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, initial_beta=0.05, network=_QUICK_WIDER_NETWORK))
