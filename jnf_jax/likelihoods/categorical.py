"""Categorical likelihood of integers 0..num_categories-1, given logits on an axis of their own, the last one."""

import dataclasses
from typing import ClassVar

import jax

from jnf_jax import specs as specs_lib
from jnf_jax.likelihoods import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Independent categories; there is nothing to set."""

    values: ClassVar[specs_lib.Values] = "categories"

    def parameter_shape(self, spec: specs_lib.ModalitySpec) -> tuple[int, ...]:
        """Returns the shape of one logit for each category of each value."""
        return (*spec.shape, spec.num_categories)


def build(config: Config, spec: specs_lib.ModalitySpec) -> base.Likelihood:
    """Returns the likelihood."""
    del config

    def log_prob(logits, x):
        import distrax  # takes as long to import as jax, and most trainings do without

        return distrax.Categorical(logits=logits).log_prob(x).sum(base.own_axes(spec))

    return base.Likelihood(
        link=lambda raw: raw,
        log_prob=log_prob,
        mean=lambda logits: logits.argmax(-1),
        sample=jax.random.categorical,
        probabilities=jax.nn.softmax,
    )
