"""Each of these mistakes has been made in some code base; each makes a named test fail. See also `test_product` (the prior's power, chains
from uninverted base draws) and `laws/test_models` (a joint encoder that is not frozen)."""

import dataclasses

import pytest
import test_flows

from jnf_jax.flows import maf


def test_a_log_det_of_the_wrong_sign_fails_the_laws_of_flows(monkeypatch):
    config = maf.Config(hidden=(8,))
    original = maf.build

    def mutant(config, dim):
        flow = original(config, dim)

        def forward(params, z):
            u, log_det = flow.forward(params, z)
            return u, -log_det

        return dataclasses.replace(flow, forward=forward)

    monkeypatch.setattr(maf, "build", mutant)
    with pytest.raises(AssertionError):
        test_flows.test_round_trip(config, 5)
    with pytest.raises(AssertionError):
        test_flows.test_log_det_matches_autodiff(config, "forward")
    with pytest.raises(AssertionError):
        test_flows.test_density_in_the_plane_integrates_to_one(config)
