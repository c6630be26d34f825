import jax
import pytest
from jax.experimental import multihost_utils

from jnf_jax.training import checkpoint, files, processes


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (files.DamagedError, files.DamagedError),
        (checkpoint.SaveError, checkpoint.SaveError),
        (ValueError, ValueError),
        (OSError, ValueError),
    ],
)
def test_all_processes_raise_what_the_first_one_did(monkeypatch, error, kind):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "meet", lambda: None)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda value: value)

    def fails():
        raise error("told")

    with pytest.raises(ValueError, match="told") as raised:
        processes.from_first(fails)
    assert type(raised.value) is kind
    assert processes.from_first(lambda: {"a": 1}) == {"a": 1}
