"""The published formats, read from small files of the same form."""

import functools
import gzip
import operator
import zipfile

import numpy as np
import pytest
import rawfiles

from jnf_jax.data import (
    digit_pairs,
    extended_polymnist,
    mhd,
    mhd_standin,
    mnist,
    mnist_mnistm,
    overlay,
    pairing,
    polymnist,
    polymnist_family,
    svhn,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    with rawfiles.installed(tmp_path_factory) as folder:
        yield folder


def test_idx_files_are_read_as_written(tmp_path):
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    rawfiles.write_idx(tmp_path / "a.gz", array)
    np.testing.assert_array_equal(mnist.read_idx(tmp_path / "a.gz"), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "gzipped idx file"),
        (gzip.compress(b"\1\2\3\4"), "begins with"),
        (gzip.compress(b"\0\0\x08\1\0\0\0\5abc"), "Expected 5 values"),
        (gzip.compress(b"\0\0\x08\3\0\0\0\5"), "lengths of 3 axes"),
        (gzip.compress(bytes(1_000))[:15] + b"damaged", "gzipped idx file"),
    ],
    ids=["no gzip", "another magic number", "values missing", "header cut", "damaged"],
)
def test_damaged_idx_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        mnist.read_idx(tmp_path / "a.gz")


def test_svhn_turns_its_axes_and_calls_ten_zero(root):
    images, labels = svhn.read("train")
    content = svhn.scipy.io.loadmat(root / "svhn/train_32x32.mat")
    np.testing.assert_array_equal(images[7], content["X"][..., 7])
    np.testing.assert_array_equal(labels[:11], [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])


def test_a_mat_file_of_something_else_is_refused(tmp_path):
    svhn.scipy.io.savemat(tmp_path / "a.mat", {"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))})
    with pytest.raises(ValueError, match="of 8 bits"):
        svhn.read_mat(tmp_path / "a.mat")
    (tmp_path / "b.mat").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="X and y"):
        svhn.read_mat(tmp_path / "b.mat")


def test_polymnist_joins_the_views_of_a_number(root):
    part = polymnist.build(polymnist.Config(), "test")
    with zipfile.ZipFile(root / "polymnist/PolyMNIST.zip") as archive:
        for name in polymnist.MODALITIES:
            np.testing.assert_array_equal(part.arrays[name][13], polymnist._image(archive, f"MMNIST/test/{name}/1.3.png"))
    np.testing.assert_array_equal(part.labels, np.arange(rawfiles.NUM_TEST) % 10)  # numbers begin anew in each class


def test_a_polymnist_archive_that_lacks_a_view_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train/m0/1.2.png", b"")
    with pytest.raises(ValueError, match=r"m0 to m4 of example 1\.2"):
        polymnist._examples(polymnist.Config(), path, "train")
    with pytest.raises(ValueError, match="got none"):
        polymnist._examples(polymnist.Config(), path, "test")


@pytest.mark.parametrize("read", [mhd.read, lambda path: mhd_standin.recordings(path, "train")])
@pytest.mark.parametrize("content", [b"", b"PK\3\4 damaged", b"nothing"])
def test_damaged_npz_files_are_refused(tmp_path, read, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"Expected an \.npz file of"):
        read(tmp_path / "a.npz")


def test_mhd_stacks_the_four_blocks_of_the_sound(root):
    arrays, labels = mhd.read(root / "mhd/mhd_test.npz")
    raw = np.load(root / "mhd/mhd_test.npz")
    np.testing.assert_array_equal(arrays["audio"][3, 5, :, 0], raw["audio"][3].reshape(128, 32)[:, 5])
    np.testing.assert_array_equal(arrays["image"][3, ..., 0], raw["image"][3, 0])
    np.testing.assert_array_equal(labels, raw["label"])


def test_colours_are_inverted_on_bright_pixels_alone():
    crop, digit = np.full((1, 28, 28, 3), 40, np.uint8), np.zeros((1, 28, 28), np.uint8)
    digit[0, 3, 4], digit[0, 5, 6] = 129, 128
    out = overlay.inverted(crop, digit)
    assert (out[0, 3, 4] == 215).all()
    assert (out != 40).sum() == 3


def test_shifted_digits_stay_whole():
    digits = np.zeros((4_000, 21, 21), np.uint8)
    digits[:, 0, 0] = digits[:, -1, -1] = 255
    rng = np.random.default_rng(0)
    top, left = rng.integers(7, size=(2, len(digits)))
    out = overlay.shifted(digits, top, left)
    assert (out.sum((1, 2), dtype=int) == 510).all()
    np.testing.assert_array_equal(out[np.arange(len(out)), top, left], 255)
    np.testing.assert_array_equal(out[np.arange(len(out)), top + 20, left + 20], 255)


def test_translated_views_draw_every_offset_and_binarise_after_scaling():
    labels = np.arange(2_000) % 10
    digits = np.full((2_000, 28, 28), 255, np.uint8)
    black = {"m0": np.zeros((40, 50, 3), np.uint8)}
    image = overlay.views(digits, labels, black, seed=0, split="train", translated=True)[1]["m0"](slice(None))[..., 0]
    assert set(np.unique(image)) == {0, 255}
    assert ((image == 255).sum((1, 2)) == 21 * 21).all()
    corners = {(int(rows.argmax()), int(columns.argmax())) for rows, columns in zip(image.any(2), image.any(1), strict=True)}
    assert corners == {(top, left) for top in range(7) for left in range(7)}
    dim = overlay.views(digits // 2, labels, black, seed=0, split="train", translated=True)[1]["m0"](slice(0, 50))
    assert not dim.any()  # 127 is not bright


def test_digits_of_the_parts_are_different_ones(root):
    parts = {split: polymnist_family.digits(0, 0.2, split)[0] for split in ("train", "validation", "test")}
    rows = {split: {digit.tobytes() for digit in part} for split, part in parts.items()}
    assert sum(map(len, rows.values())) == len(set.union(*rows.values())) == rawfiles.NUM_TRAIN + rawfiles.NUM_TEST


@pytest.mark.parametrize("fraction", [-0.1, 0.0, 1.0])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(ValueError, match="fraction between 0 and 1"):
        pairing.holdout(0, np.arange(50) % 10, fraction)


def views(pictures, **options):
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 10
    return overlay.views(rawfiles.digits(rng, labels), labels, pictures, seed=1, split="train", **options)


@pytest.mark.parametrize("translated", [False, True])
def test_a_view_depends_on_its_name_not_on_the_order_of_files(translated):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    first, again = (
        views({"m0": pixels, "m1": pixels}, translated=translated),
        views({"m1": pixels, "m0": pixels}, translated=translated),
    )
    for name in ("m0", "m1"):
        np.testing.assert_array_equal(first[1][name](slice(0, 200)), again[1][name](slice(0, 200)))
    assert (first[1]["m0"](slice(0, 200)) != first[1]["m1"](slice(0, 200))).any()


@pytest.mark.parametrize("translated", [False, True])
def test_rows_do_not_depend_on_the_piece_that_they_are_made_in(translated):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    view = views({"m0": pixels}, translated=translated)[1]["m0"]
    np.testing.assert_array_equal(view(slice(50, 90)), view(slice(0, 200))[50:90])


def test_every_digit_serves_once_in_every_view():
    labels = np.arange(1_000) % 10
    classes = np.random.default_rng(0).permutation(labels)
    for name in ("m0", "m1"):
        chosen = pairing.matched(pairing.generator(0, "train", name), classes, labels)
        assert sorted(chosen) == list(range(1_000))
        np.testing.assert_array_equal(labels[chosen], classes)


def test_a_class_without_candidates_is_refused():
    with pytest.raises(ValueError, match="none of class 2"):
        pairing.matched(np.random.default_rng(0), np.array([1, 2]), np.array([1, 1]))


def test_pairs_are_of_one_class_and_every_round_uses_each_digit_once():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 10, 500), rng.integers(0, 10, 800)
    first, second = digit_pairs.pairs(rng, a, b, repeats=3, most=30)
    np.testing.assert_array_equal(a[first], b[second])
    used = np.bincount(first, minlength=500)
    assert set(used) <= {0, 3}
    for label in range(10):
        assert (used[a == label] == 3).sum() == min((a == label).sum(), (b == label).sum(), 30)


@pytest.mark.parametrize("options", [{"pairs_per_digit": 0}, {"max_per_class": 0}])
def test_no_pairs_are_refused(options):
    with pytest.raises(ValueError, match="at least one pair a digit"):
        mnist_mnistm.Config(**options)


def test_parts_share_no_photograph(root):
    photographs = sorted((root / "photos").glob("*.jpg"))
    parts = mnist_mnistm.photographs_of(photographs, seed=0)
    assert sorted(functools.reduce(operator.iadd, parts.values(), [])) == photographs
    assert all(parts.values())
    assert parts == mnist_mnistm.photographs_of(photographs[::-1], seed=0)


def test_mnistm_is_the_absolute_difference():
    digit, pixels = np.full((28, 28), 200, np.uint8), np.full((40, 40, 3), 50, np.uint8)
    out = mnist_mnistm.blended(digit, pixels, np.array([0.0, 0.99]))
    assert (out[2:30, 2:30] == 150).all()
    assert (out[:2] == 50).all()


def test_parts_share_no_recording(root):
    shapes = {
        split: mhd_standin.recordings(root / "fsdd/fsdd_8k_int16.npz", split)[0] for split in ("train", "validation", "test")
    }
    assert {split: x.shape for split, x in shapes.items()} == {
        "train": (40, 32, 128), "validation": (50, 32, 128), "test": (50, 32, 128),
    }  # fmt: skip
    rows = [{x.tobytes() for x in part} for part in shapes.values()]
    assert len(set.union(*rows)) == 140


def test_a_tone_lights_up_its_own_band():
    for frequency in (300.0, 1_000.0, 3_000.0):
        tone = 10_000 * np.sin(2 * np.pi * frequency * np.arange(4_000) / 8_000)
        image = mhd_standin.spectrogram(tone)
        centres = mhd_standin.librosa.mel_frequencies(n_mels=130, fmin=0, fmax=4_000)[1:-1]
        assert abs(centres[image[8].argmax()] - frequency) < 60
        assert image.max() == 255
        assert image[30].max() < 30  # the recording is over


def test_silence_is_dark():
    assert mhd_standin.spectrogram(np.zeros(3_000)).max() == 0


def test_strokes_are_resampled_evenly_along_their_length():
    stroke = np.array([[0.0, 0.0], [0.1, 0.0], [1.0, 0.0], [1.0, 1.0]])
    points = mhd_standin.resampled(stroke).reshape(-1, 2)
    assert points.shape == (100, 2)
    np.testing.assert_array_equal(points[[0, -1]], stroke[[0, -1]])
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    np.testing.assert_allclose(np.delete(steps, steps.argmin()), 2 / 99)  # but for the one step across the corner
    assert np.isfinite(mhd_standin.resampled(np.zeros((8, 2)))).all()


def test_a_stroke_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "a").write_text("1, 2, 3\n")
    with pytest.raises(ValueError, match="16 coordinates"):
        mhd_standin.strokes(tmp_path / "a")
    (tmp_path / "b").write_text("x, y\n")
    with pytest.raises(ValueError, match="16 coordinates"):
        mhd_standin.strokes(tmp_path / "b")


def test_extended_polymnist_is_made_of_its_own_files(root):
    part = extended_polymnist.build(extended_polymnist.Config(), "test")
    assert len(part) == rawfiles.NUM_TEST
    crops = np.asarray(overlay.picture(root / "polymnist_backgrounds" / extended_polymnist.PICTURES["m3"]))
    values = set(map(tuple, crops.reshape(-1, 3)))
    dark = part.arrays["m3"][0, 0]  # digits reach neither the first row nor the last
    assert set(map(tuple, dark)) <= values
