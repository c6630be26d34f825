import dataclasses
import hashlib
import json
import os
import pathlib
import sys

import lost
import numpy as np
import pytest
from pyarrow import parquet

from experiments import on_ray, sample, shards


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_loaded", lost.loaded)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    return shards.Job(
        workdir=str(tmp_path / "run"), output=str(tmp_path / "shards"), observe="a", split="test",
        num_samples=4, per_shard=10, seed=0,
    )  # fmt: skip


def rows(job):
    found = parquet.read_table(job.output)
    return np.asarray(found["example"]), np.asarray(found["draw"]), np.asarray(found["z"].combine_chunks().flatten())


def check(job, manifest):
    """Every example was drawn once, given itself, and the manifest tells where."""
    examples, draws, z = rows(job)
    np.testing.assert_array_equal(examples, np.repeat(np.arange(lost.NUM), job.num_samples))
    np.testing.assert_array_equal(draws, np.tile(np.arange(job.num_samples), lost.NUM))
    assert np.abs(z - 2 * examples).max() < 5
    listed = json.loads(manifest.read_text())
    assert listed["num_examples"] == sum(shard["num_examples"] for shard in listed["shards"]) == lost.NUM
    for shard in listed["shards"]:
        assert hashlib.sha256((pathlib.Path(job.output) / shard["file"]).read_bytes()).hexdigest() == shard["sha256"]
    assert not list(pathlib.Path(job.output).glob(".*"))


def test_every_example_is_drawn_once_and_what_is_there_is_kept(job):
    found = shards.plan(job)
    assert found.missing == [0, 1, 2]
    shards.draw(job, found.asked, 1)
    kept = (pathlib.Path(job.output) / "part-00001.parquet").stat()
    again = shards.plan(job)
    assert again.missing == [0, 2]
    for number in again.missing:
        shards.draw(job, again.asked, number)
    check(job, shards.finish(job, again))
    assert (pathlib.Path(job.output) / "part-00001.parquet").stat().st_mtime_ns == kept.st_mtime_ns
    assert shards.plan(job).missing == []


def test_examples_that_lack_what_is_observed_are_left_out(job, monkeypatch):
    model, data, params = lost.loaded(job.workdir)
    mask = np.arange(lost.NUM) % 3 > 0
    masked = dataclasses.replace(data["test"], masks={"a": mask})
    monkeypatch.setattr(shards, "_loaded", lambda workdir: (model, {"test": masked}, params))
    found = shards.plan(job)
    assert found.missing == [0, 1]
    for number in found.missing:
        shards.draw(job, found.asked, number)
    listed = json.loads(shards.finish(job, found).read_text())
    examples, _, z = rows(job)
    np.testing.assert_array_equal(examples, np.repeat(np.flatnonzero(mask), job.num_samples))
    assert np.abs(z - 2 * examples).max() < 5
    assert (listed["num_examples"], listed["num_left_out"]) == (mask.sum(), lost.NUM - mask.sum())
    assert [shard["first"] for shard in listed["shards"]] == [1, 16]
    masked = dataclasses.replace(data["test"], masks={"a": np.zeros(lost.NUM, bool)})
    with pytest.raises(ValueError, match="Expected an example of test that has a, got none"):
        shards.plan(job)


def test_a_file_that_is_no_shard_is_not_taken_for_one(job):
    shards.plan(job)
    (pathlib.Path(job.output) / "part-00001.parquet").write_bytes(b"something else")
    with pytest.raises(ValueError, match="got another's: part-00001"):
        shards.plan(job)


def test_shards_have_randomness_of_their_own(job):
    found = shards.plan(job)
    for number in found.missing:
        shards.draw(job, found.asked, number)
    examples, _, z = rows(job)
    assert len(set(np.round(z - 2 * examples, 6))) == len(z)


@pytest.mark.parametrize("change", [{"seed": 1}, {"num_samples": 3}, {"observe": "a,b"}])
def test_shards_of_another_question_are_refused(job, change):
    shards.draw(job, shards.plan(job).asked, 0)
    with pytest.raises(ValueError, match="Expected shards of this very question"):
        shards.plan(dataclasses.replace(job, **change))


def test_shards_of_other_weights_are_refused(job, monkeypatch):
    shards.draw(job, shards.plan(job).asked, 0)
    model, data, _ = lost.loaded(job.workdir)
    monkeypatch.setattr(shards, "_loaded", lambda workdir: (model, data, {"weight": np.ones(2)}))
    with pytest.raises(ValueError, match="Expected shards of this very question"):
        shards.plan(job)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_samples": 0}, "num_samples of at least 1, got 0"), ({"per_shard": 0}, "per_shard of at least 1, got 0")],
)
def test_numbers_that_make_no_sense_are_refused(job, change, message):
    with pytest.raises(ValueError, match=message):
        shards.plan(dataclasses.replace(job, **change))


def test_what_is_missing_from_the_command_line_is_said(tmp_path):
    with pytest.raises(ValueError, match="Expected --output, and modalities to --observe, with --all"):
        sample.draw_all(sample.Arguments(workdir=tmp_path, all=True, observe="a"))


def test_flags_of_shards_alone_are_refused_without_all(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sample", "--workdir", str(tmp_path), "--split", "train"])
    with pytest.raises(ValueError, match="Expected --all with --split"):
        sample.main()


def test_without_ray_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install \"jnf_jax\[ray\]\""):
        next(on_ray.run(print, [()]))


@pytest.mark.slow
def test_a_lost_ray_worker_is_replaced_and_each_shard_is_written_once(job, tmp_path, monkeypatch):
    """A local cluster of two workers, one of which is killed in the middle of a shard."""
    import ray

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(pathlib.Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}})
    try:
        found = shards.plan(job)
        parts = [(job, found.asked, number, str(tmp_path / "killed")) for number in found.missing]
        done = list(on_ray.run(lost.draw, parts))
        assert sorted(number for number, _ in done) == [0, 1, 2]
        assert (tmp_path / "killed").exists()
        assert os.getpid() not in {pid for _, pid in done}
        with pytest.raises(ValueError, match="Expected a Ray node with 64 CPU, got at most 2"):
            next(on_ray.run(lost.draw, parts, cpus=64))
    finally:
        ray.shutdown()
    check(job, shards.finish(job, found))
