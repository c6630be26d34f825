import pytest

from experiments import parts


def test_a_killed_measurement_goes_on_with_the_part_that_it_was_at(tmp_path):
    path = tmp_path / "parts.json"
    first = parts.Parts(path, {"seed": 0, "of": tmp_path})
    found = first.get("a", lambda: {"value": (1, 2.5)})
    with pytest.raises(KeyboardInterrupt):
        first.get("b", interrupted)
    second = parts.Parts(path, {"seed": 0, "of": tmp_path})
    assert second.get("a", interrupted) == found == {"value": [1, 2.5]}
    assert second.get("b", lambda: 3) == 3
    assert parts.Parts(path, {"seed": 1, "of": tmp_path}).get("a", lambda: "another") == "another"
    second.remove()
    assert not path.exists()


def test_the_time_of_earlier_processes_counts(tmp_path, monkeypatch):
    clock = iter([0.0, 5.0, 100.0, 103.0])
    monkeypatch.setattr(parts.time, "monotonic", lambda: next(clock))
    parts.Parts(tmp_path / "parts.json", {}).get("a", lambda: 1)
    assert parts.Parts(tmp_path / "parts.json", {}).seconds == 8.0


def interrupted():
    raise KeyboardInterrupt
