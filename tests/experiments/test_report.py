import html
import html.parser
import json
import re
import shutil
import subprocess
import urllib.parse

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import pytest

from experiments import experiment, report
from jnf_jax import configs

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def write(folder, *, seed, beta, from_one, pictures=False):
    folder.mkdir(parents=True)
    config = configs.to_json(experiment.find("polydigits/jnf"))
    config["model"]["beta"] = beta
    (folder / "config.json").write_text(json.dumps({**config, "seed": seed}))
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
    metrics = [{"stage": stage, "step": step, "loss": 9.0 - step} for stage in ("joint", "experts") for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in metrics))
    if pictures:
        (folder / "figures").mkdir()
        PIL.Image.fromarray(np.full((20, 30, 3), [255, 0, 0], np.uint8)).save(folder / "figures" / "any_to_any.png")
    return folder


def write_all(tmp_path):
    return [
        write(tmp_path / "jnf" / "seed_0", seed=0, beta=1.0, from_one=0.6, pictures=True),
        write(tmp_path / "jnf" / "seed_1", seed=1, beta=1.0, from_one=0.7),
        write(tmp_path / "other", seed=0, beta=2.0, from_one=0.5),
    ]


@pytest.fixture
def runs(tmp_path):
    return write_all(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return report.page(report.grouped([report.load(folder) for folder in write_all(tmp_path_factory.mktemp("runs"))]))


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


def test_a_seed_does_not_count_twice(runs, tmp_path):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    with pytest.raises(ValueError, match=r"every seed of an experiment once, got it in .*seed_0 and in .*copy"):
        report.grouped([report.load(folder) for folder in (*runs, copy)])


def test_draws_from_nothing_are_named_by_their_density(runs):
    path = runs[2] / "evaluation.json"
    content = json.loads(path.read_text()) | {"joint_coherence_by_density": {"prior": 0.1, "flow": 0.7}}
    path.write_text(json.dumps(content))
    columns, rows = report.table(report.grouped([report.load(folder) for folder in runs]))
    assert "joint, mixture" not in columns
    assert [row[columns.index("joint, flow")] for row in rows] == ["", "0.700"]
    assert [row[columns.index("joint, prior")] for row in rows] == ["0.100 ± 0.000", "0.100"]


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


@pytest.mark.parametrize(("name", "text"), [("evaluation", "[1]"), ("evaluation", "{}"), ("config", "null"), ("config", "{}")])
def test_a_file_of_something_else_is_refused(runs, name, text):
    (runs[0] / f"{name}.json").write_text(text)
    with pytest.raises(ValueError, match=r"holds no JSON object|Expected a whole evaluation|Expected the config of a run"):
        report.load(runs[0])


class Links(html.parser.HTMLParser):
    """Everything that a page would load, and where it leads."""

    def __init__(self):
        super().__init__()
        self.loaded, self.anchors, self.ids = [], [], []

    def handle_starttag(self, tag, attributes):
        self.loaded += [value for name, value in attributes if name == "src" or (name == "href" and tag != "a")]
        self.anchors += [value for name, value in attributes if name == "href" and tag == "a"]
        self.ids += [value for name, value in attributes if name == "id"]


def test_the_page_needs_nothing_else(page):
    links = Links()
    links.feed(page)
    assert len(links.loaded) == 5  # two figures of coherence, two stages' curves, one picture
    assert all(link.startswith("data:image/png;base64,") for link in links.loaded)
    assert {anchor.removeprefix("#") for anchor in links.anchors} <= set(links.ids)


def test_axes_of_counts_have_whole_numbers(runs):
    figure, axis = plt.subplots()
    report.draw_coherence(axis, report.grouped([report.load(folder) for folder in runs]))
    assert list(axis.get_xticks()) == [1, 2]
    plt.close(figure)
    figure = report._training_figure([report.load(runs[0])], "joint")
    figure.canvas.draw()
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())
    plt.close(figure)


def test_a_line_that_a_killed_run_left_is_passed_over(runs):
    with (runs[0] / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "joint", "st')
    assert [row["step"] for row in report.load(runs[0]).metrics] == [1, 2, 1, 2]


class Browser:
    """A page in headless Chromium, in a frame of any width: its windows have at least 500 pixels."""

    def __init__(self, page, folder):
        self.page, self.folder = page, folder
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-sync",
        ]
        self.command = [BROWSER, *flags, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000"]

    def _framed(self, width, script=""):
        inner = html.escape(f"{self.page}<script>{script}</script>")
        path = self.folder / "framed.html"
        path.write_text(
            f"<body style='margin:0'><iframe style='border:0;width:{width}px;height:2000px' srcdoc=\"{inner}\"></iframe>"
        )
        return path.as_uri()

    def measure(self, width, expression):
        """Returns the value of a JavaScript expression in the page, once it is laid out."""
        marked = "parent.document.body.insertAdjacentHTML('beforeend', '<pre id=found>' + encodeURIComponent(JSON.stringify(v)) + '</pre>')"
        uri = self._framed(width, f"onload = () => {{ const v = {expression}; {marked} }}")
        command = [*self.command, f"--window-size={max(width, 500)},2000", "--dump-dom", uri]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
        return json.loads(urllib.parse.unquote(re.search(r'<pre id="found">(.*?)</pre>', dom)[1]))

    def pixels(self, width, *flags):
        """Returns the pixels `[H, W, 3]` of the page."""
        shot = self.folder / "shot.png"
        command = [*self.command, *flags, f"--window-size={max(width, 500)},2000", f"--screenshot={shot}", self._framed(width)]
        subprocess.run(command, capture_output=True, timeout=120, check=True)
        return np.asarray(PIL.Image.open(shot).convert("RGB"))[:, :width]


@pytest.fixture
def browser(page, tmp_path):
    return Browser(page, tmp_path)


in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@in_a_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_never_scrolls_sideways(browser, width):
    found = browser.measure(
        width,
        """(document.querySelectorAll('details').forEach(d => d.open = true), {
          page: document.documentElement.scrollWidth,
          inner: document.documentElement.clientWidth,
          outside: [...document.querySelectorAll('body *')].filter(e => !e.parentElement.closest('.scroll')
            && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 80)),
          boxes: [...document.querySelectorAll('.scroll:has(table)')].map(e => e.clientWidth),
          tables: [...document.querySelectorAll('.scroll > table')].map(e => e.scrollWidth),
          lines: [...document.querySelectorAll('td:not(:first-child)')].map(e => {
            const range = document.createRange(); range.selectNodeContents(e)
            return new Set([...range.getClientRects()].map(r => Math.round(r.bottom))).size }),
        })""",
    )
    assert found["page"] == found["inner"] <= width
    assert found["outside"] == []
    assert max(found["lines"]) == 2  # a number, and its spread below it
    assert found["boxes"][0] > 0.9 * width  # a table has the page's width
    if width == 1280:
        assert all(table <= box for table, box in zip(found["tables"], found["boxes"], strict=True))  # and needs no more
    else:
        assert found["tables"][0] > found["boxes"][0]  # it scrolls in its own box


@in_a_browser
def test_tables_sort_by_a_click_and_filter(browser):
    act = """(() => {
      const table = document.querySelector('table'), heading = [...table.querySelectorAll('th')].find(h => h.textContent === 'from 1')
      const order = () => [...table.tBodies[0].rows].filter(r => r.offsetHeight).map(r => parseFloat(r.cells[heading.cellIndex].textContent))
      const found = [order()]
      heading.click(); found.push(order(), heading.getAttribute('aria-sort'))
      heading.click(); found.push(order(), heading.getAttribute('aria-sort'))
      const field = document.querySelector('.filter')
      field.value = 'OTHER'; field.dispatchEvent(new Event('input', { bubbles: true })); found.push(order())
      return found })()"""
    start, down, first, up, second, kept = browser.measure(1280, act)
    assert start == [0.65, 0.5]
    assert (down, first) == ([0.65, 0.5], "descending")
    assert (up, second) == ([0.5, 0.65], "ascending")
    assert kept == [0.5]


@in_a_browser
def test_chains_are_folded_and_pictures_grow_by_a_click(browser):
    act = """(() => {
      const chains = document.querySelector('#chains details'), table = chains.querySelector('table')
      const found = [table.checkVisibility(), chains.innerText]
      chains.querySelector('summary').click(); found.push(table.checkVisibility())
      const image = document.querySelector('#training img'), before = image.clientWidth
      image.click(); found.push(before < image.naturalWidth, image.clientWidth === image.naturalWidth)
      return [...found, document.documentElement.scrollWidth <= innerWidth] })()"""
    shown, summary, opened, reduced, natural, fits = browser.measure(1280, act)
    assert not shown
    assert "largest R-hat 1.020" in summary
    assert opened
    assert reduced
    assert natural
    assert fits


@in_a_browser
def test_the_page_is_light_or_dark_as_the_reader_prefers_and_a_button_turns_it(browser):
    corner = lambda pixels: pixels[5, 5].mean()
    assert corner(browser.pixels(1280, "--blink-settings=preferredColorScheme=1")) > 240
    assert corner(browser.pixels(1280, "--blink-settings=preferredColorScheme=0")) < 40
    act = """(() => { const colour = () => getComputedStyle(document.body).backgroundColor, button = document.getElementById('theme')
      const found = [colour()]; button.click(); found.push(colour()); button.click(); found.push(colour()); return found })()"""
    before, turned, back = browser.measure(400, act)
    assert before == back != turned


@in_a_browser
def test_a_runs_pictures_are_shown(browser):
    pixels = browser.pixels(1280).reshape(-1, 3)
    assert (pixels == [255, 0, 0]).all(1).sum() >= 500  # the red picture of the first run, 20x30


def test_predictions_from_all_others_are_columns(runs):
    def evaluation(sex):
        found = json.loads((runs[0] / "evaluation.json").read_text())
        found["prediction"] = {
            "kinds": {"blood": "explained variance", "sex": "accuracy"},
            "by_subset": {"scan": {"blood": 0.1, "sex": 0.2}, "blood+scan": {"sex": sex}, "scan+sex": {"blood": 0.4}},
        }
        measured = ("all", "blood", "scan", "sex", "rest given blood", "rest given scan", "rest given sex")
        found["log_likelihood"] = dict.fromkeys([f"{n}{end}" for n in measured for end in ("", "_standard_error")], -5.25)
        return found

    for folder, sex in zip(runs, (0.5, 0.7, 0.9), strict=True):
        (folder / "evaluation.json").write_text(json.dumps(evaluation(sex)))
    columns, rows = report.table(report.grouped([report.load(folder) for folder in runs]))
    assert [row[columns.index("sex from the others")] for row in rows] == ["0.600 ± 0.141", "0.900"]
    assert rows[1][columns.index("blood from the others")] == "0.400"  # from both, not from the scan alone
    assert rows[1][columns.index("log likelihood")] == "-5.25"
