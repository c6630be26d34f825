"""Bernoulli likelihood of 0 and 1, given logits."""

import dataclasses
from typing import ClassVar

import jax

from jnf_jax import specs as specs_lib
from jnf_jax.likelihoods import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Independent Bernoulli variables; there is nothing to set."""

    values: ClassVar[specs_lib.Values] = "binary"


def build(config: Config, spec: specs_lib.ModalitySpec) -> base.Likelihood:
    """Returns the likelihood; its mean is the probability of 1."""
    del config

    def log_prob(logits, x):
        import distrax  # takes as long to import as jax, and most trainings do without

        return distrax.Bernoulli(logits=logits).log_prob(x).sum(base.own_axes(spec))

    return base.Likelihood(
        link=lambda raw: raw,
        log_prob=log_prob,
        mean=jax.nn.sigmoid,
        sample=lambda key, logits: jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(logits.dtype),
    )
