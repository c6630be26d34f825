"""What the documentation says holds: its examples run, its commands exist, its tables are those of the committed results."""

import dataclasses
import importlib
import json
import os
import pathlib
import re
import sys

import committed
import jax
import numpy as np
import pytest

import jnf_jax_experiments.__main__ as command
from experiments import listing
from jnf_jax.training import fit

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "README.md"
OTHERS = [ROOT / "experiments" / "README.md", ROOT / "experiments" / "benchmarks" / "README.md"]
GENERATED = {"api", "extensions", "notebooks"}
DOCS = sorted(p for p in (ROOT / "docs").rglob("*.md") if p.relative_to(ROOT / "docs").parts[0] not in GENERATED)
PAGES = [README, *OTHERS, *DOCS]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def label(path):
    return str(path.relative_to(ROOT))


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p, "python")], ids=label)
def test_examples_run(path, tmp_path, monkeypatch, capsys):
    """The blocks of a page, one after the other, each stage of training cut to one call; a shape or a word told behind a print is what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit.Config, "num_calls", property(lambda config: 1))
    monkeypatch.setitem(sys.modules, "example", type(sys)("example"))
    names = vars(sys.modules["example"])  # classes look up their module
    with jax.enable_x64(False):
        for block in blocks(path, "python"):
            exec(compile(block, label(path), "exec"), names)
            told = re.findall(r"^print\(.*\)  # (\([\d, ]+\)|\w+)(?=:|$)", block, flags=re.MULTILINE)
            assert set(told) <= set(capsys.readouterr().out.splitlines())


def commands(path):
    for block in blocks(path, "bash"):
        yield from re.findall(r"^\s*jnf-jax +(\S+)(.*)$", block, flags=re.MULTILINE)


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_commands_exist(path):
    for verb, rest in commands(path):
        assert verb in {*command.verbs(), "list"}, verb
        if verb == "train" and not (name := rest.split()[0]).endswith(".py") and "$" not in name:
            assert name in listing.names()
        module = importlib.import_module(f"experiments.{verb.replace('-', '_')}") if verb != "list" else None
        if hasattr(module, "Arguments"):
            fields = {field.name.replace("_", "-") for field in dataclasses.fields(module.Arguments)}
            flags = {flag.removeprefix("no-") for flag in re.findall(r" --([a-z][a-z-]*)", rest.split("--evaluate=")[0])}
            assert flags <= fields, verb


@pytest.mark.parametrize("name", list(committed.readme_tables()))
def test_the_readme_has_the_tables_of_the_committed_results(name):
    assert committed.readme_tables()[name] in README.read_text(), "run `make tables`"


def test_every_committed_data_set_has_a_table():
    for data in committed.data_sets():
        table = committed.coherence(data).splitlines()
        assert len(table) > 2
        assert len({line.count("|") for line in table}) == 1, data


def test_a_new_model_appears_by_itself(tmp_path, monkeypatch):
    source = committed.table_text.RESULTS / "polydigits" / "jnf" / "seed_0"
    for model in ("jnf", "a_new_one"):
        folder = tmp_path / "polydigits" / model / "seed_0"
        folder.mkdir(parents=True)
        for name in ("config.json", "evaluation.json"):
            values = json.loads((source / name).read_text())
            if name == "config.json" and model != "jnf":
                values["model"]["beta"] = 9.0
            (folder / name).write_text(json.dumps(values))
    monkeypatch.setattr(committed.table_text, "RESULTS", tmp_path)
    assert committed.data_sets() == ["polydigits"]
    assert "polydigits/a_new_one" in committed.coherence("polydigits")
    assert "polydigits" in committed.others()
    assert committed.figure("polydigits").count("<img") == 1


def test_the_best_point_of_each_models_grid_is_bold(tmp_path, monkeypatch):
    points = {f"beta_{beta}_rate_{rate}": {"coherence": beta * rate} for beta in (1, 2.5) for rate in (0.001, 0.002)}
    points["beta_9_rate_1"] = {"failed": True}
    (tmp_path / "views" / "grid").mkdir(parents=True)
    for model, best in (("jnf", "beta_2.5_rate_0.002"), ("mvae", "beta_1_rate_0.001")):
        (tmp_path / "views" / "grid" / f"{model}.json").write_text(json.dumps({"best": best, "by_point": points}))
        points = points | {"beta_0.5_rate_0.002": {"coherence": 0.0}}  # of the second model alone
    monkeypatch.setattr(committed.table_text, "RESULTS", tmp_path)
    heading, _, *rows = committed.grids("views").splitlines()
    assert heading.startswith("|  | beta 0.5, rate 0.002 | beta 1, rate 0.001 |")
    assert rows == [
        "| jnf |  | 0.001 | 0.002 | 0.003 | **0.005** | failed |",
        "| mvae | 0.000 | **0.001** | 0.002 | 0.003 | 0.005 | failed |",
    ]


def test_readme_and_pages_are_short():
    lines = README.read_text().splitlines()
    assert len(lines) <= 180
    assert [line for line in lines if len(line) > 100 and not line.startswith("|")] == []
    assert {label(path): n for path in [*DOCS, *OTHERS] if (n := len(path.read_text().splitlines())) >= 150} == {}


@pytest.mark.parametrize("path", [README, *OTHERS], ids=label)
def test_links_lead_somewhere(path):
    """Those of the site are checked by its build."""
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", NOTEBOOKS, ids=label)
def test_notebooks_have_no_outputs_and_a_badge(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert "colab-badge.svg" in "".join(cells[0]["source"])
    assert path.name in "".join(cells[0]["source"])
    install = "".join(code[0]["source"])
    assert not re.search(r"pip install[^\n]*\bjax(lib)?\b", install), "Colab's own jax stays"


def test_the_command_is_the_one_that_is_installed():
    assert "jnf-jax = jnf_jax_experiments.__main__:main" in (ROOT / "setup.cfg").read_text()
    assert os.path.samefile(command.jnf_jax_experiments.ROOT, ROOT)


def test_seeds_that_share_observations_do_not_make_them_more():
    values = [1.0, 2.0, 4.0, 8.0]
    one = {"score": {"by_size": {"2": {"mean": 3.75, "standard_error": np.std(values, ddof=1) / 2, "values": values}}}}
    told = committed.committed_gaps._sizes([one], "score", ".3f")
    assert told == f"3.750 ± {np.std(values, ddof=1) / 2:.3f}"
    assert committed.committed_gaps._sizes([one, one], "score", ".3f") == told


def test_spreads_and_paired_differences_of_known_values():
    """Of 1, 2, 3, 4 the standard deviation is 1.29, the mean's error half of that."""
    import committed_gaps
    import table_text

    assert table_text.spread([1.0, 2.0, 3.0, 4.0], ".2f") == "2.50 ± 1.29"
    assert table_text.spread([1.0], ".2f") == "1.00"
    assert committed_gaps._paired([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]) == "2.50 ± 0.65"
