"""Shards of a model that needs no training, drawn by a worker that can be lost: for `test_shards.py`, and for Ray's workers, which import it."""

import functools
import os
import pathlib
import signal

import jax
import numpy as np

from experiments import shards
from jnf_jax import specs, types
from jnf_jax.data import source
from jnf_jax.models import base

SPECS = {"a": specs.ModalitySpec(shape=(2,)), "b": specs.ModalitySpec(shape=(3,))}
NUM = 23


@functools.cache
def loaded(workdir):
    """A model whose draws are N(sum of a, 1), and data of which example i is i everywhere."""

    def sample_posterior(params, key, observed, *, num_samples):
        loc = observed["a"].sum(-1)
        z = (loc + jax.random.normal(key, (num_samples, *loc.shape)))[..., None]
        return z, types.exact_info(z)

    model = base.Model(specs=SPECS, latent_dim=1, stages=(), sample_posterior=sample_posterior,
                       **dict.fromkeys(("init", "sample_prior", "posterior_log_density", "decode", "log_likelihood", "elbo")))  # fmt: skip
    rows = np.arange(NUM, dtype=np.float32)[:, None]
    arrays = {name: np.tile(rows, (1, *spec.shape)) for name, spec in SPECS.items()}
    return model, {"test": source.Source(specs=SPECS, arrays=arrays)}, {}


def draw(job, asked, number, once):
    """Draws a shard; the worker of shard 1 is killed the first time, with what it had begun to write left behind."""
    shards._loaded = loaded
    if number == 1 and not pathlib.Path(once).exists():
        pathlib.Path(once).touch()
        (pathlib.Path(job.output) / f".part-00001.parquet.{os.getpid()}.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    shards.draw(job, asked, number)
    return number, os.getpid()
