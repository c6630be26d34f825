"""Curves are read back from what the loggers wrote; a resumed run goes on with them."""

import pathlib
import re
import struct
import subprocess
import sys
import types

import numpy as np
import pytest
import tfevents
from wandb.proto import wandb_internal_pb2

from jnf_jax.training import fit, loggers

ROOT = pathlib.Path(__file__).parents[2]
IMAGE = np.linspace(0, 1, 5 * 7 * 3).reshape(5, 7, 3)


def log(name, folder, steps, *, continued=0):
    """A process of a run: it starts after step `continued`, and is killed after the last of `steps` where it does not close."""
    (logger,) = loggers.start([name], folder, {"seed": 3, "model": {"beta": 2.5}})
    logger.begin("joint", continued)
    for step in steps:
        validation = -1.0 if step % 20 == 0 else None
        logger.write(fit.Report("joint", step, 100, 1 / step, {"kl": float(step), "contrastive/a+b": 0.5}, validation))
        if validation is not None:
            logger.picture("joint", step, IMAGE)
    logger.close()


def test_a_missing_package_says_what_to_install(monkeypatch):
    for name, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ValueError, match=rf'the package {package}, got none: pip install "jnf_jax\[{name}\]"'):
            loggers.check([name])
    with pytest.raises(ValueError, match=r"Expected loggers of .* got 'print'"):
        loggers.check(["print"])


def test_tensorboard_hides_what_a_killed_run_left(tmp_path, monkeypatch):
    from tensorboardX import event_file_writer

    times = iter([100.0, 200.0])  # files are read in the order of their names, which tell the second
    monkeypatch.setattr(event_file_writer, "time", types.SimpleNamespace(time=lambda: next(times, 300.0)), raising=False)
    log("tensorboard", tmp_path, [10, 20, 30])
    log("tensorboard", tmp_path, [30, 40], continued=20)
    shown = tfevents.shown(tmp_path / "tensorboard" / "joint")
    assert shown["joint/loss"] == [(step, pytest.approx(1 / step)) for step in (10, 20, 30, 40)]
    assert [step for step, _ in shown["joint/validation_loss"]] == [20, 40]
    assert [step for step, _ in shown["joint/pictures"]] == [20, 40]
    assert (shown["joint/pictures"][0][1].height, shown["joint/pictures"][0][1].width) == (5, 7)


def history(path, *, header=7, block=32768):
    """The rows of an offline run's file, which has LevelDB's framing: a record lies in parts that keep within blocks."""
    content, at, record = path.read_bytes(), header, b""
    while at + header <= len(content):
        if block - at % block < header:  # filling
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        record += content[at + header : at + header + length]
        at += header + length
        if kind not in (1, 4):  # whole, or its last part
            continue
        record, done = b"", wandb_internal_pb2.Record.FromString(record)
        if done.HasField("history"):
            yield {item.key or "/".join(item.nested_key): item.value_json for item in done.history.item}


def test_weights_and_biases_offline_goes_on_with_the_same_run(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log("wandb", tmp_path, [10, 20, 30])
    log("wandb", tmp_path, [30, 40], continued=20)
    wandb.teardown()  # the service that writes the files has ended, and with it its writing
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len({path.name for path in files}) == 1  # one run, in two parts
    rows = [row for path in files for row in history(path)]
    losses = {int(row["joint/step"]): float(row["joint/loss"]) for row in rows if "joint/loss" in row}
    assert losses == {step: pytest.approx(1 / step) for step in (10, 20, 30, 40)}
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/joint/*.png"))) == 2


def test_weights_and_biases_without_an_account_says_so(tmp_path, monkeypatch):
    import wandb

    def init(**options):
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(ValueError, match="Expected an account of Weights & Biases, or WANDB_MODE=offline"):
        log("wandb", tmp_path, [10])


class Store:
    """MLflow's client, as far as it is used; runs live in the class, as they do in a data base."""

    runs: dict = {}  # noqa: RUF012

    def __init__(self, tracking_uri):
        self.runs = Store.runs.setdefault(tracking_uri, {})

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name, artifact_location):
        assert artifact_location.startswith("file://")
        return "7"

    def create_run(self, experiment, run_name):
        name = f"{experiment}/{len(self.runs)}"
        self.runs[name] = {"params": {}, "metrics": [], "images": [], "status": "RUNNING"}
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=name))

    def log_param(self, run, key, value):
        self.runs[run]["params"][key] = value

    def update_run(self, run, status):
        self.runs[run]["status"] = status

    def get_metric_history(self, run, key):
        return [point for point in self.runs[run]["metrics"] if point.key == key]

    def log_batch(self, run, metrics):
        self.runs[run]["metrics"] += metrics

    def log_image(self, run, image, artifact_file):
        self.runs[run]["images"].append((artifact_file, image.dtype))

    def set_terminated(self, run):
        self.runs[run]["status"] = "FINISHED"


def test_mlflow_gets_every_point_once(tmp_path, monkeypatch):
    def metric(key, value, timestamp, step):
        assert re.fullmatch(r"[\w./: -]+", key)  # MLflow refuses others
        return types.SimpleNamespace(key=key, value=value, step=step)

    fake = types.SimpleNamespace(MlflowClient=Store, entities=types.SimpleNamespace(Metric=metric))
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(Store, "runs", {})
    log("mlflow", tmp_path, [10, 20, 30])
    log("mlflow", tmp_path, [30, 40], continued=20)
    ((store, runs),) = Store.runs.items()
    assert store == f"sqlite:///{tmp_path / 'mlflow.db'}"
    (run,) = runs.values()
    assert [(m.step, m.value) for m in run["metrics"] if m.key == "joint/loss"] == [(s, 1 / s) for s in (10, 20, 30, 40)]
    assert [m.step for m in run["metrics"] if m.key == "joint/contrastive/a-b"] == [10, 20, 30, 40]
    assert run["params"] == {"seed": "3", "model.beta": "2.5"}
    assert run["images"] == [("joint/0000020.png", np.uint8), ("joint/0000040.png", np.uint8)]
    assert run["status"] == "FINISHED"


@pytest.mark.slow
def test_mlflow_itself_gets_every_point_once(tmp_path):
    """In a folder of its own: it asks for older packages than those that are pinned here."""
    packages = tmp_path / "packages"
    wanted = ["mlflow-skinny>=3", "sqlalchemy>=2", "alembic>=1.13"]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", packages, *wanted], check=True)
    code = (
        f"import sys, pathlib; sys.path[:0] = [{str(packages)!r}, {str(ROOT)!r}, {str(ROOT / 'tests')!r}, {str(ROOT / 'tests' / 'training')!r}]\n"
        "import test_loggers as t; folder = pathlib.Path(sys.argv[1])\n"
        "t.log('mlflow', folder, [10, 20, 30]); t.log('mlflow', folder, [30, 40], continued=20)\n"
        "import mlflow; client = mlflow.MlflowClient(tracking_uri=f'sqlite:///{folder}/mlflow.db')\n"
        "(run,) = client.search_runs([client.get_experiment_by_name('jnf_jax').experiment_id])\n"
        "print([p.step for p in client.get_metric_history(run.info.run_id, 'joint/loss')], run.info.status)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[10, 20, 30, 40] FINISHED"
    assert len(list((tmp_path / "mlflow").rglob("*.png"))) == 2
