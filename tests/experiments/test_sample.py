import dataclasses
import sys

import drawn
import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments import pictures, sample
from jnf_jax import specs


def tiles(figure):
    """Returns the rows of a grid, each as its tiles `[columns, size, size, 3]`."""
    rows = []
    for axis in figure.axes:
        canvas = np.asarray(axis.get_images()[0].get_array())
        rows.append(np.stack([canvas[:, c:][:, : pictures.SIZE] for c in range(0, canvas.shape[1], pictures.SIZE + 4)]))
    return rows


def draw(subset, **options):
    arguments = sample.Arguments(workdir=None, num_samples=5, num_observations=2, **options)
    return sample.draw(drawn.model(), {}, drawn.data(), subset, arguments)


def test_a_picture_of_many_modalities_has_a_name_that_files_can_have():
    many = tuple(f"modality_{i}" for i in range(60))
    first, second = sample._stem(many), sample._stem(many[:-1])
    assert first != second
    assert max(map(len, (first, second))) < 200
    assert sample._stem(many[:3]) == "modality_0+modality_1+modality_2"


@pytest.mark.parametrize("subset", [("digit",), ("digit", "blood", "tissue"), ()])
def test_each_example_has_a_row_for_every_modality_and_several_draws_that_vary(subset):
    figure = draw(subset)
    rows = tiles(figure)
    assert len(rows) == 2 * len(drawn.SPECS)
    for row, name in zip(rows, [*drawn.SPECS] * 2, strict=True):
        draws = row[1:] if subset else row
        assert len(draws) == 5
        different = {tile.tobytes() for tile in draws}
        assert name == "tissue" or len(different) == 5  # of two words, all draws may be one
    plt.close(figure)


def test_the_test_example_stands_first_and_observed_ones_are_framed():
    figure = draw(("blood",), first=3)
    digit, blood, tissue = tiles(figure)[:3]
    data = drawn.data()
    expected = pictures.tile(drawn.SPECS["digit"], data.arrays["digit"][3], limits=(0.0, 1.0))
    np.testing.assert_allclose(digit[0], expected, atol=1e-6)
    framed = lambda row: (row[0][0] == row[0][0, 0]).all() and row[0][0, 0, 0] > 0.8 > 0.2 > row[0][0, 0, 2]
    assert framed(blood)
    assert not framed(digit)
    assert not framed(tissue)
    texts = [text.get_text() for text in figure.texts]
    assert {"test example 3", "test example 4", "digit", "draw 5"} <= set(texts)
    assert any(text.startswith("blood\n") and text.endswith("mmol/l") for text in texts)
    plt.close(figure)


def test_what_was_not_measured_is_neither_observed_nor_shown():
    mask = np.ones(30, bool)
    mask[[0, 1, 4]] = False
    data = dataclasses.replace(drawn.data(), masks={"blood": mask})
    arguments = sample.Arguments(workdir=None, num_samples=5, num_observations=2)
    observed = sample.draw(drawn.model(), {}, data, ("blood",), arguments)
    assert {"test example 2", "test example 3"} <= {text.get_text() for text in observed.texts}
    digit, blood, _ = tiles(sample.draw(drawn.model(), {}, data, ("digit",), arguments))[:3]
    assert (blood[0] == 1).all()  # white: no tile
    assert not (digit[0] == 1).all()
    with pytest.raises(ValueError, match="Expected a test example that has blood, got none"):
        sample.draw(drawn.model(), {}, dataclasses.replace(data, masks={"blood": ~mask & False}), ("blood",), arguments)


def test_draws_are_those_of_the_posterior():
    """A tile of a draw is the decoder's mean at the draw's z."""
    figure = draw(("blood",))
    z, _ = drawn.model().sample_posterior(
        {}, sample.keys.stream(jax.random.key(0), "blood"), {"blood": np.zeros((2, 3))}, num_samples=5
    )
    x = np.asarray(drawn.model().decode({}, z)["digit"])
    for n in range(5):
        expected = pictures.tile(drawn.SPECS["digit"], x[n, 0], limits=(0.0, 1.0))
        np.testing.assert_allclose(tiles(figure)[0][n + 1], expected, atol=1e-6)
    plt.close(figure)


def test_the_spread_beside_a_draw_is_that_of_observations():
    spec = specs.ModalitySpec(shape=(2,), scale=0.5)
    found = sample._observable(spec, jax.random.key(0), np.zeros((6, 40, 2)))
    assert found.shape == (300, 40, 2)
    assert found.std() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(2 * found.size))
    assert sample._observable(specs.ModalitySpec(shape=(8, 8, 1)), jax.random.key(0), np.zeros((6, 40, 8, 8, 1))) is None


def test_subsets_that_no_test_example_has_are_passed_over(tmp_path, monkeypatch, capsys):
    even = np.arange(30) % 2 == 0
    data = {"test": dataclasses.replace(drawn.data(), masks={"blood": even, "digit": ~even})}
    monkeypatch.setattr(sample.run_folder, "load", lambda folder: None)
    monkeypatch.setattr(sample.experiment, "build", lambda config: (drawn.model(), data))
    monkeypatch.setattr(sample.stages, "load", lambda *args, **options: {})
    command = ["sample", "--workdir", str(tmp_path), "--num-samples", "2", "--num-observations", "1"]
    monkeypatch.setattr(sys, "argv", command)
    assert sample.main() == 0
    assert "no test example has digit, blood" in "".join(capsys.readouterr())
    drawn_for = {path.stem for path in (tmp_path / "samples").glob("*.png")}
    assert drawn_for == {"prior", "digit", "blood", "tissue", "digit+tissue", "blood+tissue"}
    monkeypatch.setattr(sys, "argv", [*command, "--observe", "digit,blood"])
    with pytest.raises(ValueError, match="a test example that has digit, blood, got none"):
        sample.main()
