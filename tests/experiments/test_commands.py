"""The command line as a user runs it: in processes of its own."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SHORT = ["--data.num-train", "600", "--data.num-validation", "100", "--data.num-test", "60", "--model.flow.hidden", "8", "8",
         "--training.joint.num-steps", "400", "--training.experts.num-steps", "400",
         "--training.joint.batch-size", "32", "--training.experts.batch-size", "32",
         "--training.joint.steps-per-call", "20", "--training.experts.steps-per-call", "20",
         "--training.joint.calls-per-validation", "2", "--training.experts.calls-per-validation", "2"]  # fmt: skip


def environment():
    """A user's environment: one device, float32, a wide terminal, in which tables keep their headings whole."""
    return {**os.environ, "COLUMNS": "200", "XLA_FLAGS": "--xla_llvm_disable_expensive_passes=true"}


def run(module, *arguments, check=True):
    result = subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


def params_files(workdir):
    """The finished stages, by the digests of their files' contents."""
    import hashlib

    import jax
    import numpy as np

    from experiments import experiment
    from jnf_jax import configs
    from jnf_jax.training import stages

    config = experiment.load(workdir)
    model = configs.build(config.model, configs.build(config.data, "train").specs)
    leaves = jax.tree.leaves(stages.load(model, workdir))
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run("train", "linear_gaussian/jnf", "--workdir", workdir, *SHORT)
    return workdir


def digest(workdir):
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tests/experiments'); import test_commands as t; "
        "print(t.params_files(pathlib.Path(sys.argv[1])))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(workdir)], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


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


@pytest.mark.parametrize("moment", ["joint", "between", "experts"])
def test_a_killed_run_resumes_to_the_same_parameters(whole, tmp_path, moment):
    """SIGKILL in the middle of stage 1, right after its end, and in the middle of stage 2."""
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "experiments.train", "linear_gaussian/jnf", "--workdir", str(workdir), *SHORT]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watched = {
        "joint": lambda: list(workdir.glob("checkpoints/joint/*.json")),
        "between": lambda: list(workdir.glob("params/joint/*.json")),
        "experts": lambda: list(workdir.glob("checkpoints/experts/*.json")),
    }[moment]
    deadline = time.monotonic() + 300
    while not watched():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(workdir.glob("params/experts/*.json")), "killed too late"
    run("train", "linear_gaussian/jnf", "--workdir", workdir, *SHORT)
    assert digest(workdir) == digest(whole)
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
        (["linear_gaussian/jnf", "--workdir", "{new}", "--data.num-train", "40"], "at least one batch of 500"),
        (["linear_gaussian/jnf", "--workdir", "{new}", "--init-from", "{whole}"], "got others of"),
        (
            ["linear_gaussian/jnf", "--workdir", "{new}", "--init-from", "{whole}", "--init-stages", "experts"],
            "['joint'] to be taken",
        ),
    ],
)
def test_mistakes_get_one_clear_line(whole, tmp_path, arguments, message):
    filled = [a.format(new=tmp_path / "new", whole=whole) for a in arguments]
    result = run("train", *filled, check=False)
    assert result.returncode == 2
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "new" / "config.json").exists()  # the corrected command finds the folder empty


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

    from experiments import experiment, train

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
    config = experiment.load(whole)
    with jax.enable_x64(False):  # as the run was trained
        model, _ = experiment.build(config)
        check = lambda: train._check_taken(config, model, other, ["joint"], workdir)
        if broken is None:
            check()
        else:
            with pytest.raises(ValueError, match=message):
                check()


def test_chains_too_short_for_a_diagnosis_say_nothing():
    import numpy as np

    from experiments import evaluate, tables
    from jnf_jax import types

    values = {"acceptance": 0.8, "divergences": 0, "improper": False, "rhat": np.nan, "ess": np.nan}
    info = types.Info(*(np.full(5, values.get(field, 0.1)) for field in types.Info._fields))
    summary = evaluate.chain_summary(info, 1.5)
    assert summary["share_below"] is None
    assert summary["untrusted"]["rhat"] == []
    assert tables.number(summary["rhat_largest"], ".3f") == "-"
    told = evaluate.chain_summary(info._replace(rhat=np.array([1.0, 1.2, 2.0, np.nan, 1.0])), 1.5)
    assert told["share_below"] == pytest.approx(0.6)
    assert told["untrusted"]["rhat"] == [2, 3]
    assert told["ess_median"] is None


def test_help_shows_what_people_set_first():
    out = run("train", "polydigits/jnf", "--help").stdout
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


def test_help_all_lists_every_field_with_its_meaning():
    out = run("train", "polydigits/jnf", "--help-all").stdout
    for text in (
        "--workdir",
        "--overwrite",
        "--init-from",
        "--model.flow.num-blocks",
        "weight of the KL term",
        "--training.experts.clip-norm",
    ):
        assert text in out


def command(*arguments, cwd):
    """Runs `jnf-jax` with nothing of the clone on the path but the package that it lies in."""
    settings = {**environment(), "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, "-m", "jnf_jax_experiments", *map(str, arguments)],
        cwd=cwd, env=settings, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def test_the_command_lists_its_verbs_and_the_experiments(tmp_path):
    out = command(cwd=tmp_path).stdout
    for verb in ("train", "evaluate", "sample", "figures", "report", "sweep", "inference-gap", "list"):
        assert f"  {verb} " in out
    assert "settings" not in out
    assert "polydigits/jnf" in command("list", cwd=tmp_path).stdout.splitlines()
    wrong = command("trian", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "Did you mean 'train'?" in wrong.stderr


def test_a_config_anywhere_is_trained_and_read_back(tmp_path):
    import numpy as np

    from experiments import experiment

    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", a=rng.normal(size=(200, 4)), b=rng.normal(size=(200, 3)))
    (tmp_path / "mine.py").write_text(OWN)
    result = command("train", tmp_path / "mine.py", "--workdir", "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    config = experiment.load(tmp_path / "run")
    assert config.data.specs["b"].shape == (3,)
    assert command("sample", "--workdir", "run", "--observe", "a", cwd=tmp_path).returncode == 0
    missing = command("train", "other.py", "--workdir", "run", cwd=tmp_path)
    assert "got no file at 'other.py'" in missing.stderr
    (tmp_path / "empty.py").write_text("")
    assert "exports CONFIG" in command("train", "empty.py", "--workdir", "run", cwd=tmp_path).stderr


OWN = """
from experiments import experiment
from jnf_jax import ModalitySpec
from jnf_jax.data import arrays
from jnf_jax.models import jnf
from jnf_jax.networks import mlp
from jnf_jax.training import fit

short = fit.Config(num_steps=20, batch_size=16, steps_per_call=10)
CONFIG = experiment.Config(
    data=arrays.Config(path="mine.npz", specs={"a": ModalitySpec(shape=(4,)), "b": ModalitySpec(shape=(3,))}),
    model=jnf.Config(latent_dim=2, network=mlp.Config(hidden=(8,))),
    training={"joint": short, "experts": short},
)
"""


def test_two_writers_are_refused(whole):
    code = (
        "import pathlib, sys, time; from experiments import experiment\n"
        "with experiment.lease(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
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


def test_evaluate_sample_and_figures(whole):
    small = ["--num-observations", "30", "--num-prior", "50", "--num-likelihood", "10", "--num-importance", "20",
             "--batch-size", "20", "--num-codes", "100", "--num-scored", "10"]  # fmt: skip
    out = run("evaluate", "--workdir", whole, *small).stdout
    assert "Coherence by subset size" in out
    result = json.loads((whole / "evaluation.json").read_text())
    assert set(result["classifier_accuracy"]) == {"x0", "x1", "x2"}
    assert set(result["coherence"]["by_size"]) == {"1", "2"}
    assert set(result["coherence"]["by_subset"]["x0+x2"]) == {"x1"}
    assert 0 <= result["joint_coherence"] <= 1
    assert set(result["joint_coherence_by_density"]) == {"prior", "mixture"}
    assert set(result["frechet"]["distance"]["by_subset"]["x0+x2"]) == {"x1"}
    assert result["frechet"]["num_generated"] == 30
    assert set(result["reconstruction"]["x1"]) == {"mean_squared_error"}  # no image has no structural similarity
    assert 0 < result["cluster_accuracy"] <= 1
    values = result["log_likelihood"]
    assert {"all", "x0", "x1", "x2", "rest given x0"} <= set(values)
    assert values["rest given x0"] == pytest.approx(values["all"] - values["x0"])
    assert result["elbo"] < 0
    assert set(result["hmc"]["by_subset"]) == {"x0+x1", "x0+x2", "x1+x2"}
    assert result["diversity"]["mean"] > 0
    assert set(result["subset_score"]["by_size"]) == {"1", "2"}
    assert result["subset_score"]["by_subset"]["x0+x2"]["standard_error"] > 0
    run("evaluate", "--workdir", whole, "--chains-only", "--chain-observations", "5", "--chain-draws", "50")
    long = json.loads((whole / "evaluation.json").read_text())["hmc"]["long_chains"]
    assert long["num_draws"] == 50
    assert long["by_subset"]["x0+x1"]["share_below"] <= 1
    assert set(long["by_subset"]) == {"x0+x1", "x0+x2", "x1+x2"}
    run("inference_gap", "--workdir", whole, "--num-observations", "5", "--num-points", "41", "--num-partners", "5")
    gap = json.loads((whole / "inference_gap.json").read_text())["by_subset"]
    assert {"mean", "standard_error", "values", "floor"} <= set(gap["x0+x2"])
    run("sample", "--workdir", whole, "--observe", "x0,x2", "--num-samples", "3")
    assert (whole / "samples" / "x0+x2.png").stat().st_size > 1000
    run("figures", "--workdir", whole, "--num-latent", "30", "--num-traced", "2")
    run("report", whole, "--output", whole / "report.html")
    assert "data:image/png" in (whole / "report.html").read_text()
    pictures = {p.name for p in (whole / "figures").iterdir()}
    assert pictures == {"losses.png", "any_to_any.png", "latent_space.png", "coherence.png", "chains.png"}


def test_long_chains_already_run_are_taken_over(whole, monkeypatch):
    import jax

    from experiments import evaluate, experiment

    arguments = evaluate.Arguments(workdir=whole, chain_observations=5, chain_draws=50)
    config = experiment.load(whole)
    drawn = []
    with jax.enable_x64(False):  # as the run was trained
        first = next(evaluate.long_chains(arguments, config, {}))
        assert list(first["by_subset"]) == ["x0+x1"]
        monkeypatch.setattr(evaluate.coherence, "draw", lambda *a, **o: drawn.append(a[4]) or pytest.fail("stop"))
        with pytest.raises(pytest.fail.Exception):
            list(evaluate.long_chains(arguments, config, first))
        with pytest.raises(pytest.fail.Exception):  # another question: everything is drawn again
            list(evaluate.long_chains(dataclasses.replace(arguments, chain_draws=60), config, first))
    assert drawn == [("x0", "x2"), ("x0", "x1")]


def test_an_unfinished_run_is_not_evaluated(tmp_path):
    result = run("evaluate", "--workdir", tmp_path, check=False)
    assert result.returncode == 2
    assert "Expected a run's folder" in result.stderr


def test_an_experiment_without_a_quick_size_says_so(tmp_path):
    result = run("train", "polydigits/jnf", "--workdir", tmp_path, "--quick", check=False)
    assert result.returncode == 2
    assert "quick as it is" in result.stderr


def test_a_data_set_without_its_raw_files_names_them(tmp_path):
    settings = {**environment(), "JNF_DATA_DIR": str(tmp_path / "none"), "JNF_CACHE_DIR": str(tmp_path / "cache")}
    result = subprocess.run(
        [sys.executable, "-m", "experiments.train", "polymnist/jnf", "--workdir", str(tmp_path / "run"), "--quick"],
        cwd=ROOT, env=settings, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert result.returncode == 2
    assert "none/polymnist/PolyMNIST.zip" in result.stderr
    assert "zenodo" in result.stderr


def test_ways_to_multiply_experts_are_compared(whole, tmp_path):
    small = ["--num-observations", "30", "--num-scored", "10", "--num-chained", "5", "--chain-draws", "50",
             "--num-prior", "50", "--subsets", "sizes:2", "--results", tmp_path]  # fmt: skip
    out = run("product_gap", "--workdir", whole, "--arms", "published", "default", "direct", *small).stdout
    assert "Products of experts, by size of the subset" in out
    for arm in ("published", "default"):
        (kept,) = tmp_path.rglob(f"{arm}/seed_0.json")
        result = json.loads(kept.read_text())
        assert result == json.loads((whole / "product_gap" / f"{arm}.json").read_text())
        assert set(result["score"]["by_size"]["2"]) == {"mean", "standard_error", "values"}
        assert len(result["gap"]["by_size"]["2"]["values"]) == 10
        assert set(result["by_subset"]) == {"x0+x1", "x1+x2"}
    wrong = run("product_gap", "--workdir", whole, "--arms", "publish", check=False)
    assert wrong.returncode == 2
    assert "Expected arms of" in wrong.stderr
