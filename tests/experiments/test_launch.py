"""The recipes for clusters, as far as they can be checked without one."""

import pathlib
import re
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "experiments" / "launch"
RECIPES = sorted(p for p in LAUNCH.iterdir() if p.suffix in (".sh", ".yaml"))
SCRIPTS = [p for p in RECIPES if p.suffix == ".sh"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_valid(path):
    subprocess.run(["bash", "-n", path], check=True)
    assert path.stat().st_mode & 0o111


def flags():
    text = (ROOT / "experiments" / "train.py").read_text() + (ROOT / "experiments" / "cluster.py").read_text()
    return set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', text))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_every_recipe_trains_with_flags_that_exist(path):
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    (command,) = re.findall(r"experiments\.train (.*?)(?:\n\s*resources|\n\S|\Z)", text, flags=re.DOTALL)
    used = set(re.findall(r"(--[a-z-]+)", command))
    assert {"--workdir", "--watchdog"} <= used <= flags()


@pytest.mark.parametrize("exit_code", [0, 1, 130])
def test_a_slurm_job_is_queued_again_where_a_signal_stopped_it(tmp_path, exit_code):
    """With `srun` and `scontrol` that write down what they are called with."""
    for name, code in (("srun", exit_code), ("scontrol", 0)):
        (tmp_path / name).write_text(f'#!/bin/bash\necho {name} "$@" >> {tmp_path}/calls\nexit {code}\n')
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    found = subprocess.run([LAUNCH / "slurm.sh", "polydigits/jnf", "runs/a"], env=environment, check=False)
    assert found.returncode == exit_code
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "experiments.train polydigits/jnf --workdir runs/a" in calls[0]
    assert calls[1:] == (["scontrol requeue 7"] if exit_code == 130 else [])


def test_slurm_sends_a_signal_ahead_of_the_limit():
    header = re.findall(r"^#SBATCH (\S+)$", (LAUNCH / "slurm.sh").read_text(), flags=re.MULTILINE)
    assert {"--requeue", "--signal=TERM@120", "--open-mode=append"} <= set(header)


def test_the_job_set_starts_as_many_processes_as_it_says():
    job_set = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    (replicated,) = job_set["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    (command,) = container["args"]
    assert job["completionMode"] == "Indexed"
    assert f"--num-processes {job['completions']} " in command
    assert job["parallelism"] == job["completions"]
    host = f"{job_set['metadata']['name']}-{replicated['name']}-0-0.{job_set['metadata']['name']}"
    assert f"--coordinator {host}:" in command
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] >= 60
