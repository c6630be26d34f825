import sys

import drawn
import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments import figures, run_folder
from jnf_jax import specs

KEY = jax.random.key(0)


def test_losses_have_a_panel_for_each_stage_and_below_it_the_terms():
    rows = [
        {"stage": "joint", "step": step, "loss": 10.0 - step, "kl": 1.0 * step, "gradient_norm": 3.0} for step in range(1, 6)
    ]
    rows[-1]["validation_loss"] = 4.0
    rows += [{"stage": "experts", "step": step, "loss": 2.0} for step in (1, 2)]
    figure = figures.losses(rows)
    joint, experts, terms, nothing = figure.axes
    assert [axis.get_title() for axis in (joint, experts)] == ["stage joint", "stage experts"]
    curves = {line.get_label(): line.get_xydata().tolist() for line in joint.lines}
    assert curves == {"training": [[step, 10 - step] for step in range(1, 6)], "validation": [[5, 4]]}
    assert [line.get_label() for line in terms.lines] == ["KL from the prior"]
    assert not nothing.get_visible()
    figure.canvas.draw()
    assert all(float(tick).is_integer() for tick in terms.get_xticks())
    plt.close(figure)


def test_losses_of_a_run_without_metrics_are_an_empty_panel():
    figure = figures.losses([])
    assert figure.axes[0].get_title() == "stage no stage trained here"
    plt.close(figure)


@pytest.mark.parametrize(
    ("params", "density", "last"),
    [
        ({"marginal": {"loc": np.zeros(2)}}, None, ["draws of the prior N(0, I)", "draws of the fitted marginal"]),
        ({"marginal": {"loc": np.zeros(2)}}, len, ["draws of the fitted marginal"]),
        ({"marginal": {}}, None, ["draws of the prior"]),
    ],
)
def test_the_latent_map_shows_codes_by_class_and_draws_beside_them(params, density, last):
    figure = figures.latent_space(drawn.model(prior_log_density=density), params, KEY, drawn.data())
    shown = [axis for axis in figure.axes if axis.get_visible()]
    codes = ["codes of all modalities", *(f"codes of {name}" for name in drawn.SPECS)]
    assert [axis.get_title() for axis in shown] == [*codes, *last]
    assert [len(axis.collections) for axis in shown] == [3] * len(codes) + [1] * len(last)  # classes, and grey points
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0", "1", "2"]
    plt.close(figure)


def test_any_to_any_has_test_data_and_every_subset_in_tiles_of_one_size():
    figure = figures.any_to_any(drawn.model(), {}, KEY, drawn.data(), num_observations=4)
    subsets = ["digit", "blood", "tissue", "digit + blood", "digit + tissue", "blood + tissue", "digit + blood + tissue"]
    assert [axis.get_title() for axis in figure.axes] == ["test data", *(f"from {subset}" for subset in subsets)]
    shapes = {axis.get_images()[0].get_array().shape for axis in figure.axes}
    step = figures._TILE + 4
    assert shapes == {(3 * step - 4, 4 * step - 4, 3)}
    names = [text.get_text() for text in figure.texts]
    assert names[0::3] == ["digit"] * 2  # at the left of both lines of blocks
    assert names[1].startswith("blood\n")
    box = figure.axes[0].get_window_extent()
    assert box.width * figures._DPI / figure.dpi >= 4 * figures._TILE  # every pixel of a tile is drawn
    plt.close(figure)


@pytest.mark.parametrize(("num", "expected"), [(2, 3), (5, 31), (8, 22), (16, 16)])
def test_of_many_subsets_some_of_every_size_are_shown(num, expected):
    names = tuple(f"m{i}" for i in range(num))
    shown = figures._shown(names)
    assert len(shown) == len(set(shown)) == expected
    assert {len(subset) for subset in shown} == set(range(1, num + 1))


def test_eight_modalities_are_drawn():
    modalities = {f"m{i}": specs.ModalitySpec(shape=(3,)) for i in range(8)}
    figure = figures.any_to_any(drawn.model(modalities), {}, KEY, drawn.data(modalities), num_observations=2)
    assert len(figure.axes) == 23
    plt.close(figure)


def test_a_modality_without_runs_beside_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["figures", "--workdir", str(tmp_path), "--modality", "a"])
    with pytest.raises(ValueError, match="Expected --beside with --modality"):
        figures.main()
    assert not list(tmp_path.iterdir())


def test_runs_of_folders_of_one_name_are_told_apart(tmp_path):
    folders = [tmp_path / "first" / "mvae", tmp_path / "second" / "mvae", tmp_path / "third" / "jnf" / "seed_0"]
    assert run_folder.labels(folders[1:]) == ["mvae", "jnf/seed_0"]
    assert run_folder.labels(folders[:2]) == ["first/mvae", "second/mvae"]
    seeds = [tmp_path / name / "jnf" / "seed_0" for name in "xy"]
    assert run_folder.labels(seeds) == ["x/jnf/seed_0", "y/jnf/seed_0"]
    with pytest.raises(ValueError, match="different runs beside each other"):
        run_folder.labels([folders[0], folders[0]])
