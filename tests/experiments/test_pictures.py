import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments import pictures
from jnf_jax import specs

Spec = specs.ModalitySpec
BLUE = lambda image: (image[..., 2] > 0.6) & (image[..., 0] < 0.3)
ORANGE = lambda image: (image[..., 0] > 0.8) & (image[..., 2] < 0.2)
KINDS = [
    (Spec(shape=(16, 16), support=(0.0, 1.0)), "picture"),
    (Spec(shape=(28, 28, 3), support=(0.0, 1.0)), "picture"),
    (Spec(shape=(5, 7, 4)), "picture"),
    (Spec(shape=(300, 200, 1), likelihood="bernoulli"), "picture"),
    (Spec(shape=(8, 8), likelihood="categorical", num_categories=3), "picture"),
    (Spec(shape=(32, 128, 1), support=(0.0, 1.0), layout="spectrogram"), "spectrogram"),
    (Spec(shape=(32, 128), support=(0.0, 1.0)), "picture"),
    (Spec(shape=(3,)), "bars"),
    (Spec(shape=(1, 16, 1)), "bars"),
    (Spec(shape=(17,)), "curve"),
    (Spec(shape=(200,)), "curve"),
    (Spec(shape=(200,), support=(0.0, 1.0), layout="path"), "path"),
    (Spec(shape=(1,), likelihood="categorical", num_categories=4), "words"),
    (Spec(shape=(2,), likelihood="categorical", num_categories=4, labels=("a", "b", "a long name, indeed", "d")), "words"),
    (Spec(shape=(40,), likelihood="categorical", num_categories=4), "curve"),
]


def examples(spec, num=5):
    rng = np.random.default_rng(0)
    if spec.num_categories is not None:
        return rng.integers(0, spec.num_categories, (num, *spec.shape))
    return rng.random((num, *spec.shape))


@pytest.mark.parametrize(("spec", "kind"), KINDS)
def test_every_modality_gets_a_tile_of_one_size(spec, kind):
    x = examples(spec)
    limits = pictures.limits(spec, x)
    assert pictures.kind(spec) == kind
    for options in ({}, {"truth": x[1], "draws": x}):
        for size in (pictures.SIZE, 80):
            image = pictures.tile(spec, x[0], limits=limits, size=size, **options)
            assert image.shape == (size, size, 3)
            assert image.min() >= 0
            assert image.max() <= 1
            assert np.ptp(image) > 0.3  # something is on it


@pytest.mark.parametrize("side", [16, 28])
def test_pixels_stay_sharp(side):
    spec = Spec(shape=(side, side), support=(0.0, 1.0))
    x = np.random.default_rng(1).integers(0, 256, (side, side)) / 255
    image = pictures.tile(spec, x, limits=(0.0, 1.0))
    factor = pictures.SIZE // side
    np.testing.assert_allclose(image[..., 0], np.kron(x, np.ones((factor, factor))), atol=1e-12)


def test_a_picture_keeps_its_form_up_to_two_to_one_and_then_fills_the_tile():
    see = lambda height, width: pictures.tile(
        Spec(shape=(height, width), support=(0.0, 1.0)), np.ones((height, width)), limits=(0.0, 1.0)
    )
    white = lambda image: (image == 1).all(-1).mean()
    assert white(see(20, 10)) == pytest.approx(0.5)
    assert white(see(30, 10)) == 1


def test_a_spectrogram_has_its_first_band_at_the_bottom_and_time_to_the_right():
    spec = Spec(shape=(32, 128), support=(0.0, 1.0), layout="spectrogram")
    x = np.zeros((32, 128))
    x[-4:, :16] = 1.0  # the last frames, the lowest bands
    bright = pictures.tile(spec, x, limits=(0.0, 1.0)).sum(-1) > 1.5
    rows, columns = np.nonzero(bright)
    assert rows.min() > 0.8 * pictures.SIZE
    assert columns.min() > 0.8 * pictures.SIZE


def test_bars_reach_from_zero_to_their_values():
    spec = Spec(shape=(2,))
    blue = BLUE(pictures.tile(spec, np.array([0.8, -0.4]), limits=(-1.0, 1.0)))
    half = pictures.SIZE // 2
    up, down = blue[:half, :half].sum(), blue[half:, half:].sum()
    assert blue[:half, half:].sum() == 0
    assert up == pytest.approx(2 * down, rel=0.1)


def test_the_truth_is_marked_at_its_value_and_the_whisker_spans_the_draws():
    spec = Spec(shape=(1,))
    draws = np.linspace(-0.5, 0.5, 101)[:, None]
    bare = pictures.tile(spec, np.zeros(1), limits=(-1.0, 1.0))
    marked = pictures.tile(spec, np.zeros(1), limits=(-1.0, 1.0), truth=np.array([1.0]), draws=draws)
    rows = np.nonzero(ORANGE(marked))[0]
    place = lambda value: pictures.SIZE * (0.08 + 0.84 * (1 - value) / 2)
    assert not ORANGE(bare).any()
    assert rows.mean() == pytest.approx(place(1.0), abs=1.5)
    whisker = np.nonzero((marked != bare).any(-1) & ~(marked[..., 0] > marked[..., 2] + 0.1))[0]
    assert whisker.min() == pytest.approx(place(0.45), abs=1.5)
    assert whisker.max() == pytest.approx(place(-0.45), abs=1.5)


def test_words_are_the_labels_and_name_the_truth_where_it_is_another():
    spec = Spec(shape=(1,), likelihood="categorical", num_categories=2, labels=("liver", "kidney"))
    see = lambda x, **options: pictures.tile(spec, np.array([x]), limits=(0.0, 1.0), **options)
    assert (see(0) != see(1)).any()
    assert not ORANGE(see(0, truth=np.array([0]))).any()
    assert ORANGE(see(0, truth=np.array([1]))).any()
    assert (see(0, draws=np.array([[0], [0]])) != see(0, draws=np.array([[0], [1]]))).any()  # 100 % and 50 % of draws


def test_limits_are_those_of_the_likelihood_or_of_the_examples():
    x = np.linspace(-7, 5, 1_001)[:, None]
    assert pictures.limits(Spec(shape=(1,), support=(0.0, 2.0)), x) == (0.0, 2.0)
    assert pictures.limits(Spec(shape=(1,), likelihood="bernoulli"), x) == (0.0, 1.0)
    assert pictures.limits(Spec(shape=(1,), likelihood="categorical", num_categories=5), x) == (0.0, 4.0)
    np.testing.assert_allclose(pictures.limits(Spec(shape=(1,)), x), (-6.94, 4.94))
    low, high = pictures.limits(Spec(shape=(1,)), np.zeros((3, 1)))
    assert low < 0 < high


def test_a_caption_has_the_unit_the_range_and_the_entries_names():
    spec = Spec(shape=(2,), unit="mmol/l", labels=("iron", "zinc"))
    assert pictures.caption("blood", spec, (-1.0, 2.5)) == "blood\n-1 to 2.5 mmol/l\niron, zinc"
    assert pictures.caption("scan", Spec(shape=(9, 9)), (0.0, 1.0)) == "scan"
    standardised = Spec(shape=(2,), unit="mmol/l", labels=("iron", "zinc"), mean=(5.0, 2e5), deviation=(2.0, 1e4))
    assert pictures.caption("blood", standardised, (-1.0, 2.5)) == "blood\niron 3 to 10 mmol/l\nzinc 190,000 to 225,000 mmol/l"
    many = Spec(shape=(5,), mean=(0.0,) * 5, deviation=(1.0,) * 5)
    assert pictures.caption("blood", many, (-1.0, 2.5)) == "blood\n-1 to 2.5 standard deviations"
    money = pictures.caption("money", Spec(shape=(2,), labels=("cost_$", "price_$")), (0.0, 1.0))
    figure = pictures.grid([(money, [("", [np.zeros((8, 8, 3))])])], title="t")
    figure.canvas.draw()  # no formula between two dollars
    plt.close(figure)


def test_a_grid_has_no_holes():
    """Modalities of different sizes fill one mosaic, where only the gaps are white."""
    row = [pictures.tile(spec, examples(spec)[0], limits=pictures.limits(spec, examples(spec))) for spec, _ in KINDS]
    canvas = pictures.mosaic([row, [*row[:-1], None]], gap=4)
    size = pictures.SIZE
    assert canvas.shape == (2 * size + 4, len(row) * (size + 4) - 4, 3)
    for c in range(len(row)):
        np.testing.assert_allclose(canvas[:size, c * (size + 4) :][:, :size], row[c], atol=1e-6)
    assert (canvas[size + 4 :, -size:] == 1).all()


def test_a_grid_names_its_blocks_and_rows():
    black = np.zeros((8, 8, 3))
    figure = pictures.grid(
        [("#3", [("scan", [black] * 3), ("blood", [black])])], title="t", divider=1, headings=["test", "a", "b"]
    )
    assert [text.get_text() for text in figure.texts] == ["t", "test", "a", "b", "#3", "scan", "blood"]
    assert len(figure.axes) == 2


def test_a_path_is_drawn_as_a_curve_with_y_upwards():
    spec = Spec(shape=(100,), support=(0.0, 1.0), layout="path")
    high = np.stack([np.linspace(0, 1, 50), np.full(50, 1.0)], axis=1).reshape(-1)  # a line along the upper edge
    rows = pictures.tile(spec, high, limits=(0.0, 1.0))[..., 0].mean(1)
    assert rows.argmax() == pytest.approx(0.1 * pictures.SIZE, abs=4)  # a tenth of the picture is margin
    assert rows[pictures.SIZE // 4 :].max() == 0


@pytest.mark.parametrize(
    ("shape", "layout"), [((7,), "path"), ((4, 2), "path"), ((7,), "spectrogram"), ((4, 2, 3), "spectrogram")]
)
def test_a_layout_needs_its_shape(shape, layout):
    with pytest.raises(
        ValueError, match="Expected a layout 'grid', 'path' of a vector of pairs, or 'spectrogram' of frames by"
    ):
        Spec(shape=shape, layout=layout)


@pytest.mark.parametrize("options", [{"shape": (3,)}, {"shape": (1,), "likelihood": "categorical", "num_categories": 3}])
def test_there_is_a_label_for_each_entry_or_category(options):
    assert Spec(**options, labels=["a", "b", "c"]).labels == ("a", "b", "c")
    with pytest.raises(ValueError, match=r"Expected 3 labels, .* got \('a', 'b'\)"):
        Spec(**options, labels=("a", "b"))


def test_other_channels_than_three_stand_beside_each_other():
    x = np.stack([np.ones((8, 8)), np.zeros((8, 8))], axis=-1)
    image = pictures._channels(x)
    assert image.shape == (8, 16, 3)
    assert (image[:, :8] == 1).all() and (image[:, 8:] == 0).all()
