"""How much of its codes a subset posterior expects: a proper score.

    score(S) = E_X E_q(z|X) [log q(z | x_S)],     in nats, over held-out X

For given data it is largest for the true q(z | x_S), the average of q(z | X) over what the unseen modalities could be: a posterior that is too
narrow, too wide or elsewhere loses. Coherence is no such score: a posterior collapsed onto its mode is coherent. The density must be
normalised; where the model cannot, its `log_normaliser` estimates the constant.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import sklearn.ensemble

from jnf_jax import keys, types
from jnf_jax.models import base
from jnf_jax.posteriors import smc


class Score(NamedTuple):
    """What is known of one subset's posterior, per observation."""

    values: np.ndarray  # [B] mean of log q(z | x_S) over the observation's codes, in nats
    log_normaliser: np.ndarray  # [B] estimate of the constant; 0 where the density is normalised


def draw_codes(
    model: base.Model, params: types.Params, key: types.Array, observed: types.Batch, *, num_codes: int
) -> types.Array:
    """Returns draws z* of q(z | X), `[S, B, D]`, given all modalities."""
    return model.sample_posterior(params, keys.stream(key, "codes"), observed, num_samples=num_codes)[0]


def score(
    model: base.Model,
    params: types.Params,
    key: types.Array,
    observed: types.Batch,
    codes: types.Array,
    *,
    config: smc.Config | None = None,
) -> Score:
    """Returns the score of the subset posterior of what is observed.

    Args:
      model: the model.
      params: its parameters.
      key: random key.
      observed: the modalities S, `[B, *shape]` each.
      codes: draws z* of q(z | X) of the same examples, `[S, B, D]`.
      config: of the normaliser's estimate, where one is needed.
    """
    constant = jnp.zeros(len(next(iter(observed.values()))))
    if model.log_normaliser is not None and 1 < len(observed) < len(model.specs):
        constant = model.log_normaliser(params, key, observed, config=config or smc.Config())
    density = model.posterior_log_density(params, observed, codes).mean(0)
    return Score(np.asarray(density - constant), np.asarray(constant))


def two_sample_accuracy(codes: np.ndarray, draws: np.ndarray, *, seed: int = 0) -> float:
    """Returns the accuracy of a classifier between codes and a subset's draws, `[N, D]` each, of the same N examples; 0.5: they look alike.

    Averaged over the examples both have the codes' law if the posterior is right. Boosted trees learn from one half of the examples and
    are judged on the other.
    """
    half = len(codes) // 2
    train, test = (np.concatenate([codes[part], draws[part]]) for part in (slice(half), slice(half, None)))
    labels = lambda rows: np.repeat([0, 1], len(rows) // 2)
    judge = sklearn.ensemble.HistGradientBoostingClassifier(
        max_iter=50, min_samples_leaf=min(20, max(1, len(train) // 10)), random_state=seed
    ).fit(train, labels(train))
    return float(judge.score(test, labels(test)))
