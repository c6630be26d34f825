import numpy as np
import pytest

from jnf_jax import specs
from jnf_jax.data import arrays, source, stream

SPECS = {"image": specs.ModalitySpec(shape=(4, 3), support=(0.0, 1.0)), "vector": specs.ModalitySpec(shape=(5,))}
NUM = 200


def examples():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (NUM, 4, 3), np.uint8),
        "vector": rng.normal(size=(NUM, 5)).astype(np.float32),
        "labels": rng.integers(0, 3, NUM),
    }


@pytest.fixture
def folder(tmp_path):
    for name, x in examples().items():
        np.save(tmp_path / f"{name}.npy", x)
    return tmp_path


@pytest.mark.parametrize(
    "index",
    [np.s_[:], np.s_[3:7], np.s_[::3], np.s_[-4:], np.s_[5:5], [4], [7, 7, 3], [-1, 0], np.arange(NUM)[::-1], np.arange(NUM) % 5 == 2],
    ids=str,
)  # fmt: skip
def test_rows_are_those_of_the_array(folder, index):
    expected = examples()["image"]
    index = np.asarray(index) if isinstance(index, list) else index
    np.testing.assert_array_equal(stream.Rows(folder / "image.npy")[index], expected[index])
    order = np.random.default_rng(1).permutation(NUM)
    chosen = stream.Rows(folder / "image.npy").select(order)
    np.testing.assert_array_equal(chosen[index], expected[order][index])
    np.testing.assert_array_equal(chosen.select(np.arange(10, 20))[:], expected[order][10:20])


def test_it_has_what_an_array_has(folder):
    rows = stream.Rows(folder / "vector.npy").select(np.arange(50))
    assert (rows.shape, rows.dtype, len(rows), rows.nbytes) == ((50, 5), np.float32, 50, 1000)
    np.testing.assert_array_equal(np.asarray(rows), examples()["vector"][:50])
    with pytest.raises(IndexError, match="rows of 50 examples, got 0 to 50"):
        rows[np.asarray([0, 50])]


def test_what_is_no_file_of_examples_is_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.asarray([{}], object), allow_pickle=True)
    np.save(tmp_path / "columns.npy", np.asfortranarray(np.ones((3, 4))))
    (tmp_path / "text.npy").write_text("no array")
    for name in ("objects", "text"):
        with pytest.raises(ValueError, match=r"Expected an \.npy file of plain numbers"):
            stream.Rows(tmp_path / f"{name}.npy")
    with pytest.raises(ValueError, match="Expected an array of examples in C order"):
        stream.Rows(tmp_path / "columns.npy")


def test_a_file_that_was_cut_is_noticed(folder):
    rows = stream.Rows(folder / "vector.npy")
    whole = (folder / "vector.npy").read_bytes()
    (folder / "vector.npy").write_bytes(whole[:-3])
    with pytest.raises(ValueError, match="Expected 200 whole examples"):
        rows[:]


def test_a_folder_has_the_splits_of_the_file(folder):
    np.savez(folder / "all.npz", **examples())
    for resident in (0.0, 256.0):
        for split in ("train", "validation", "test"):
            whole = arrays.build(arrays.Config(path=str(folder / "all.npz"), specs=SPECS), split)
            part = arrays.build(arrays.Config(path=str(folder), specs=SPECS, resident=resident), split)
            assert all(isinstance(x, stream.Rows) == (resident == 0) for x in part.arrays.values())
            for name in SPECS:
                np.testing.assert_array_equal(np.asarray(part.arrays[name]), whole.arrays[name])
            np.testing.assert_array_equal(part.labels, whole.labels)
            np.testing.assert_array_equal(part.take(3).arrays["image"], whole.arrays["image"][:3])


def test_values_are_checked_as_they_are_read(folder):
    bad = examples()["vector"]
    bad[:, 2] = np.nan
    np.save(folder / "vector.npy", bad)
    with pytest.raises(ValueError, match="finite values for modality 'vector'"):
        arrays.build(arrays.Config(path=str(folder), specs=SPECS, resident=0), "train")
    bad = examples()["vector"]
    bad[np.random.default_rng(0).permutation(NUM)[5]] = np.nan  # the sixth of the training examples
    np.save(folder / "vector.npy", bad)
    data = arrays.build(arrays.Config(path=str(folder), specs=SPECS, resident=0), "train")
    with pytest.raises(ValueError, match="finite values for modality 'vector'"):
        data.arrays["vector"][:]
    np.testing.assert_array_equal(data.arrays["vector"][:5], bad[np.random.default_rng(0).permutation(NUM)[:5]])


def test_a_folder_that_lacks_a_modality_or_leaves_masks_to_nan_is_refused(folder):
    with pytest.raises(ValueError, match="got nan_is_missing=True"):
        arrays.build(arrays.Config(path=str(folder), specs=SPECS, nan_is_missing=True), "train")
    (folder / "image.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"Expected image.npy in the folder"):
        arrays.build(arrays.Config(path=str(folder), specs=SPECS), "train")


def test_a_folder_is_opened_without_reading_it(folder, monkeypatch):
    read = []
    original = stream.Rows._read
    monkeypatch.setattr(
        stream.Rows, "_read", lambda self, rows: read.append((self.path.name, len(rows))) or original(self, rows)
    )
    data = arrays.build(arrays.Config(path=str(folder), specs=SPECS, resident=0), "train")
    assert len(data) == len(data.batch()["image"]) == 160
    assert max(num for name, num in read if name != "labels.npy") == 1, read


def test_masks_lie_beside_the_modalities(folder):
    mask = np.arange(NUM) % 2 == 0
    np.save(folder / "vector_mask.npy", mask)
    data = arrays.build(arrays.Config(path=str(folder), specs=SPECS, resident=0), "train")
    order = np.random.default_rng(0).permutation(NUM)[:160]
    np.testing.assert_array_equal(data.masks["vector"], mask[order])


def test_the_complete_examples_of_files_stay_in_the_files(folder):
    arrays_ = {name: stream.Rows(folder / f"{name}.npy") for name in SPECS}
    there = np.arange(NUM) % 3 == 0
    data = source.Source(specs=SPECS, arrays=arrays_, labels=examples()["labels"], masks={"image": there}).complete()
    assert all(isinstance(x, stream.Rows) for x in data.arrays.values())
    for name in SPECS:
        np.testing.assert_array_equal(data.arrays[name][:], examples()[name][there])
    np.testing.assert_array_equal(data.labels, examples()["labels"][there])
    assert data.masks is None
