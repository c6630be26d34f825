import types

import numpy as np

from experiments import measures


def test_distances_that_only_some_modalities_have_are_told_for_those():
    real = {"b": types.SimpleNamespace(features=np.zeros((7, 2)))}
    run = types.SimpleNamespace(test=range(5), real=real)
    distances = {
        ("a",): {"b": {"distance": 1.0, "extrapolated": 0.5}, "c": {"distance": 3.0}},
        ("b",): {"c": {"distance": 5.0}},
    }
    result = measures._frechet(run, distances)
    assert result["distance"]["by_size"] == {"1": 3.0}
    assert result["extrapolated"] == {"by_size": {"1": 0.5}, "by_subset": {"a": {"b": 0.5}}}
    assert (result["num_generated"], result["num_real"]) == (5, 7)
