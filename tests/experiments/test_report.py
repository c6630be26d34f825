import html.parser
import json
import pathlib
import shutil
import subprocess

import numpy as np
import PIL.Image
import pytest

from experiments import experiment, report
from jnf_jax import configs

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def write(folder, *, seed, beta, from_one, pictures=False):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"seed": seed, "model": {"beta": beta}}))
    chains = {"acceptance": 0.8, "divergences": 0, "rhat_largest": 1.02, "share_below": 1.0, "ess_median": 99.0, "improper": 0}
    sizes = {"1": from_one, "2": from_one + 0.1}
    evaluation = {
        "num_observations": 200,
        "classifier_accuracy": {"a": 0.99, "b": 0.98},
        "coherence": {"by_size": sizes, "by_subset": {}},
        "joint_coherence": 0.1,
        "frechet": {"features": "f", "num_generated": 200, "num_real": 300, "distance": {"by_size": {"1": 9.0, "2": 8.0}}},
        "hmc": {"by_subset": {"a+b": chains}, "rhat_threshold": 1.5},
        "log_likelihood": {"all": -5.0},
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    if pictures:
        (folder / "figures").mkdir()
        PIL.Image.fromarray(np.full((20, 30, 3), [255, 0, 0], np.uint8)).save(folder / "figures" / "any_to_any.png")
    return folder


@pytest.fixture
def runs(tmp_path):
    return [
        write(tmp_path / "jnf" / "seed_0", seed=0, beta=1.0, from_one=0.6, pictures=True),
        write(tmp_path / "jnf" / "seed_1", seed=1, beta=1.0, from_one=0.7),
        write(tmp_path / "other", seed=0, beta=2.0, from_one=0.5),
    ]


def test_seeds_are_one_row_with_mean_and_deviation(runs):
    groups = report.grouped([report.load(folder) for folder in runs])
    columns, rows = report.table(groups)
    assert [len(group.runs) for group in groups] == [2, 1]
    assert rows[0][:2] == [f"{runs[0].parent.parent.name}/jnf", "2"]
    assert rows[0][columns.index("from 1")] == "0.650 ± 0.071"  # sqrt(.005)
    assert rows[1][columns.index("from 1")] == "0.500"
    assert "joint, mixture" not in columns  # nobody measured it
    lines = report.markdown(groups).splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {len(columns) + 1}


def test_a_config_from_before_a_field_is_one_with_its_default(runs):
    config = configs.to_json(experiment.find("polydigits/jnf"))
    for seed, folder in enumerate(runs[:2]):
        (folder / "config.json").write_text(json.dumps({**config, "seed": seed}))
    del config["model"]["joint_covariance"]
    (runs[0] / "config.json").write_text(json.dumps(config))
    assert len(report.grouped([report.load(folder) for folder in runs[:2]])) == 1


def test_a_run_without_evaluation_is_refused(runs):
    (runs[0] / "evaluation.json").unlink()
    with pytest.raises(ValueError, match=r"Expected an evaluated run with a evaluation\.json"):
        report.load(runs[0])


class Links(html.parser.HTMLParser):
    """Everything that a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href")]


def test_the_page_needs_nothing_else(runs):
    links = Links()
    links.feed(report.page(report.grouped([report.load(folder) for folder in runs])))
    assert len(links.found) == 3  # two figures, one picture
    assert all(link.startswith("data:image/png;base64,") for link in links.found)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_page(runs, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(report.page(report.grouped([report.load(folder) for folder in runs])))
    shot = tmp_path / "shot.png"
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-sync",
    ]
    browse = [BROWSER, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,4000"]
    dom = subprocess.run([*browse, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120).stdout
    for text in ("0.650 ± 0.071", "<h2>Chains</h2>", "a+b", "Pictures of jnf/seed_0"):
        assert text in dom
    subprocess.run([*browse, f"--screenshot={shot}", path.as_uri()], capture_output=True, timeout=120, check=True)
    pixels = np.asarray(PIL.Image.open(shot).convert("RGB")).reshape(-1, 3)
    assert (pixels == [255, 0, 0]).all(1).sum() >= 500  # the red picture of the first run, 20x30
    assert pathlib.Path(shot).stat().st_size > 10_000
