"""The command line as a user runs it: trained, killed, resumed and misused."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from scripts import ROOT, SHORT, digest, environment, run

from experiments import evaluate, experiment, run_folder, train


def test_the_folder_explains_itself(whole):
    config = json.loads((whole / "config.json").read_text())
    assert config["type"] == "experiments.experiment:Config"
    assert config["training"]["joint"]["num_steps"] == 400
    versions = json.loads((whole / "environment.json").read_text())["packages"]
    assert {"jax", "distrax", "blackjax"} <= set(versions)
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["stage"] == "joint"] == list(range(20, 401, 20))
    assert rows[1]["stage"] == "joint"
    assert "validation_loss" in rows[1]


@pytest.fixture(scope="module")
def parameters(whole):
    return digest(whole)


def test_a_run_killed_three_times_ends_with_the_same_parameters(parameters, tmp_path):
    """SIGKILL in the middle of stage 1, right after its end, and in the middle of stage 2."""
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "experiments.train", "linear_gaussian/jnf", "--workdir", str(workdir), *SHORT]
    for awaited in ("checkpoints/joint", "params/joint", "checkpoints/experts"):
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while not list(workdir.glob(f"{awaited}/*.json")):
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not list(workdir.glob("params/experts/*.json")), "killed too late"
    run("train", "linear_gaussian/jnf", "--workdir", workdir, *SHORT)
    assert digest(workdir) == parameters
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["stage"] == "joint"] == list(range(20, 401, 20))
    assert [r["step"] for r in rows if r["stage"] == "experts"] == list(range(20, 401, 20))


def test_sigterm_ends_with_the_state_saved(tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "experiments.train", "linear_gaussian/jnf", "--workdir", str(workdir), *SHORT]
    process = subprocess.Popen(
        [*command, "--training.joint.num-steps", "200000"], cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
    )
    while not list(workdir.glob("checkpoints/joint/*.json")):
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues" in errors
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    saved = max(int(p.stem) for p in workdir.glob("checkpoints/joint/*.json"))
    assert saved == rows[-1]["step"]


@pytest.fixture
def end(monkeypatch, capsys):
    """Runs a command's `main` in this process; returns its exit code and all that it said."""

    def ended(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            experiment.main(main)
        return ended.value.code, "".join(capsys.readouterr())

    return ended


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["linear_gaussian/jnf", "--workdir", "{new}", "--model.betta", "3"], "Unrecognized options: --model.betta"),
        (["linear_gaussian/jnf", "--workdir", "{new}", "--model.beta", "three"], "--model.beta"),
        (["linear_gaussian/jfn", "--workdir", "{new}"], "did you mean 'linear_gaussian/jnf'?"),
        (["linear_gaussian/jnf", "--workdir", "{whole}", *SHORT, "--seed", "7"], "(the run's -> these): seed: 0 -> 7."),
        (["linear_gaussian/jnf", "--workdir", "{whole}", "--resume"], "Unrecognized options: --resume"),
        (["linear_gaussian/jnf", "--workdir", "{new}", "--watchdog", "0"], "watchdog of more than 0 seconds"),
        (["linear_gaussian/jnf", "--workdir", "{new}", "--checkpoint-minutes", "-1"], "--checkpoint-minutes of more than 0"),
        (["linear_gaussian/jnf", "--workdir", "{new}", "--keep-every", "0"], "keep_every of at least 1"),
        (["linear_gaussian/jnf"], "got no --workdir"),
        (["other.py", "--workdir", "{new}"], "got no file at 'other.py'"),
        (["linear_gaussian/jnf", "--workdir", "{new}", "--data.num-train", "40"], "at least one batch of 500"),
        (["linear_gaussian/jnf", "--workdir", "{new}", "--init-from", "{whole}"], "got others of"),
        (
            ["linear_gaussian/jnf", "--workdir", "{new}", "--init-from", "{whole}", "--init-stages", "experts"],
            "['joint'] to be taken",
        ),
        (["linear_gaussian/jnf", "--workdir", "{new}", "--init-stages", "joint"], "Expected --init-from"),
        (
            ["linear_gaussian/jnf", "--workdir", "{whole}", *SHORT, "--overwrite", "--init-from", "{whole}"],
            "Expected --init-from another folder",
        ),
        (["linear_gaussian/jnf", "--workdir", "{new}", "--over"], "Unrecognized options: --over"),
        (["--seed", "3", "linear_gaussian/jnf", "--workdir", "{new}"], "The experiment comes first"),
    ],
)
def test_mistakes_get_one_clear_line(whole, tmp_path, end, arguments, message):
    code, said = end(train.main, *(a.format(new=tmp_path / "new", whole=whole) for a in arguments))
    assert code == 2
    assert message in said
    assert not (tmp_path / "new").exists()


def test_a_stage_of_another_run_is_taken_as_it_is(whole, tmp_path):
    other = [*SHORT, "--model.flow.hidden", "4", "4"]
    run("train", "linear_gaussian/jnf", "--workdir", tmp_path / "run", "--init-from", whole, *other)
    for path in (whole / "params" / "joint").rglob("*"):
        if path.is_file():
            assert (tmp_path / "run" / path.relative_to(whole)).read_bytes() == path.read_bytes()
    assert json.loads((tmp_path / "run" / "taken.json").read_text()) == {"from": str(whole), "stages": ["joint"]}
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"experts"}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("unfinished", "Expected a finished stage 'joint'"),
        ("damaged", "damaged ones only"),
        ("own", "Expected no stage 'joint' yet"),
        (None, None),
    ],
)
def test_only_a_finished_stage_is_taken_and_none_in_an_own_ones_place(whole, tmp_path, broken, message):
    import jax

    from experiments import beginning, experiment

    other, workdir = tmp_path / "other", tmp_path / "run"
    shutil.copytree(whole, other)
    manifest = other / "params" / "joint" / "400.json"
    assert manifest.exists()
    if broken == "unfinished":
        manifest.unlink()
    elif broken == "damaged":
        next(p for p in manifest.with_suffix("").rglob("*") if p.is_file() and p.stat().st_size).write_bytes(b"?")
    elif broken == "own":
        (workdir / "params").mkdir(parents=True)
        shutil.copytree(whole / "params" / "experts", workdir / "params" / "joint")
    config = run_folder.load(whole)
    with jax.enable_x64(False):  # as the run was trained
        model, data = experiment.build(config)
        check = lambda: beginning.check_taken(config, model, data, other, ["joint"], workdir)
        if broken is None:
            check()
        else:
            with pytest.raises(ValueError, match=message):
                check()


def test_help_shows_what_people_set_first(end):
    code, out = end(train.main, "polydigits/jnf", "--help")
    assert not code
    for text in (
        "--workdir",
        "--model.beta",
        "--model.latent-dim",
        "--model.network.channels",
        "--training.joint.num-steps",
        "2000",
    ):
        assert text in out
    assert "--model.sampler.num-warmup" not in out
    assert len(out.splitlines()) < 75


def test_help_all_lists_every_field_with_its_meaning(end):
    code, out = end(train.main, "polydigits/jnf", "--help-all")
    assert not code
    for text in (
        "--workdir",
        "--overwrite",
        "--init-from",
        "--model.flow.num-blocks",
        "weight of the KL term",
        "--training.experts.clip-norm",
    ):
        assert text in out


def test_two_writers_are_refused(whole):
    code = (
        "import pathlib, sys, time; from experiments import run_folder\n"
        "with run_folder.lease(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(whole)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline().strip() == "held"
        result = run("train", "linear_gaussian/jnf", "--workdir", whole, *SHORT, check=False)
        assert result.returncode == 2
        assert "only writer" in result.stderr
    finally:
        holder.kill()


def test_an_unfinished_run_is_not_evaluated(tmp_path, end):
    code, said = end(evaluate.main, "--workdir", tmp_path)
    assert code == 2
    assert "Expected a run's folder" in said


def test_an_experiment_without_a_quick_size_says_so(tmp_path, end):
    code, said = end(train.main, "polydigits/jnf", "--workdir", tmp_path, "--quick")
    assert code == 2
    assert "quick as it is" in said


def test_a_data_set_without_its_raw_files_names_them(tmp_path, monkeypatch, end):
    monkeypatch.setenv("JNF_DATA_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("JNF_CACHE_DIR", str(tmp_path / "cache"))
    code, said = end(train.main, "polymnist/jnf", "--workdir", tmp_path / "run", "--quick")
    assert code == 2
    assert "none/polymnist/PolyMNIST.zip" in said
    assert "zenodo" in said
