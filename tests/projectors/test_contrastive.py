import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax.projectors import contrastive


def test_a_hand_computed_example():
    """Two examples, both views the same, orthogonal to each other: a row sees its match at 1, two others at 0."""
    views = jnp.eye(2)
    expected = -np.log(np.exp(1 / 0.5) / (np.exp(1 / 0.5) + 2))
    np.testing.assert_allclose(contrastive.nt_xent(views, views, 0.5), expected, rtol=1e-12)


def test_brute_force():
    rng = np.random.default_rng(0)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 7, 3)))
    rows = [*a, *b]
    terms = []
    for i, row in enumerate(rows):
        match = rows[(i + 7) % 14]
        others = [np.exp(row @ other / 0.1) for k, other in enumerate(rows) if k != i]
        terms.append(-np.log(np.exp(row @ match / 0.1) / sum(others)))
    np.testing.assert_allclose(contrastive.nt_xent(jnp.asarray(a), jnp.asarray(b), 0.1), np.mean(terms), rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"), [({"dim": 1}, "at least 2 dimensions, got 1"), ({"temperature": 0.0}, "positive temperature")]
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        contrastive.Config(**options)


def test_one_example_has_nothing_to_be_drawn_from():
    with pytest.raises(ValueError, match="at least 2 examples, got 1"):
        contrastive.nt_xent(jnp.ones((1, 3)), jnp.ones((1, 3)), 0.1)
