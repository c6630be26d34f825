import dataclasses
import pathlib
import struct
import zlib

import datasets
import numpy as np
import PIL.Image
import pytest

from jnf_jax import specs
from jnf_jax.data import hf_datasets, image_folders, images, source

NUM = 20


def folder(root, read, *, mode="RGB"):
    """Reads a folder of two modalities with these files: `front`, twenty times the image, and `side`."""
    for name, image in {"front": read, "side": PIL.Image.new("RGB", (4, 4), "red")}.items():
        (root / name).mkdir(parents=True)
        for i in range(NUM):
            image.save(root / name / f"{i}.png")
    return image_folders.build(image_folders.Config(path=str(root), mode=mode), "train")


def square(mode, background, colour, size=(6, 4)):
    image = PIL.Image.new(mode, size, background)
    image.paste(colour, (0, 0, 2, 2))
    return image


def test_what_is_transparent_lies_on_white(tmp_path):
    lines = square("RGBA", (0, 0, 0, 0), (0, 0, 0, 255))
    expected = np.full((4, 6, 3), 255)
    expected[:2, :2] = 0
    np.testing.assert_array_equal(folder(tmp_path / "colours", lines).arrays["front"][0], expected)
    np.testing.assert_array_equal(
        folder(tmp_path / "grey", lines.convert("LA"), mode="L").arrays["front"][0], expected[..., :1]
    )
    np.testing.assert_array_equal(images.as_array(lines.convert("PA"), "RGB"), expected)
    half = PIL.Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    np.testing.assert_array_equal(images.as_array(half, "RGB"), np.full((1, 1, 3), 127))


def test_images_are_turned_upright(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 3), np.uint8)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    PIL.Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=exif)
    with PIL.Image.open(tmp_path / "turned.png") as image:
        np.testing.assert_array_equal(images.as_array(image, "RGB"), pixels)


def test_colours_of_more_than_eight_bits_are_refused(tmp_path):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = b"\0" + np.full(3 * 5, 3000, ">u2").tobytes()
    head = struct.pack(">IIBBBBB", 5, 2, 16, 2, 0, 0, 0)
    path = tmp_path / "deep.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(2 * row)) + chunk(b"IEND", b""))
    with PIL.Image.open(path) as image, pytest.raises(ValueError, match="8 bits a channel, got 16 bits"):
        images.as_array(image, "RGB")
    data = datasets.Dataset.from_dict({"a": [str(path)] * NUM, "b": np.ones((NUM, 2)).tolist()})
    data.cast_column("a", datasets.Image()).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match="8 bits a channel, got 16 bits in modality 'a'"):
        hf_datasets.build(hf_datasets.Config(path=str(tmp_path / "set"), columns={"a": "a", "b": "b"}), "train")


def test_images_of_zeros_and_ones_are_masks(tmp_path):
    mask = PIL.Image.fromarray((np.arange(24).reshape(4, 6) % 3 == 0).astype(np.uint8))
    part = folder(tmp_path, mask, mode="L")
    assert part.specs["front"] == specs.ModalitySpec(shape=(4, 6, 1), likelihood="bernoulli")
    black = folder(tmp_path / "black", PIL.Image.new("L", (6, 4)), mode="L")
    assert black.specs["front"].likelihood == "laplace"


def test_hidden_files_are_left_out(tmp_path):
    folder(tmp_path, PIL.Image.new("L", (6, 4)))
    (tmp_path / ".checkpoints").mkdir()
    (tmp_path / "front" / "._0.png").write_bytes(b"no image")
    assert list(image_folders.build(image_folders.Config(path=str(tmp_path)), "train").specs) == ["front", "side"]


@pytest.mark.parametrize(
    ("mode", "background", "colour", "channels"),
    [("P", 0, 1, 3), ("1", 1, 0, 1), ("CMYK", (0, 0, 0, 0), (0, 0, 0, 255), 3), ("LA", (255, 255), (0, 255), 1)],
)
def test_columns_of_images_are_read_as_they_look(tmp_path, mode, background, colour, channels):
    image = square(mode, background, colour)
    if mode == "P":
        image.putpalette([255, 255, 255, 0, 0, 0])
    data = datasets.Dataset.from_dict({"a": [image] * NUM, "b": np.ones((NUM, 2)).tolist()})
    data.cast_column("a", datasets.Image()).save_to_disk(tmp_path / "set")
    part = hf_datasets.build(hf_datasets.Config(path=str(tmp_path / "set"), columns={"a": "a", "b": "b"}), "train")
    expected = np.full((4, 6, channels), 1 if mode == "1" else 255)
    expected[:2, :2] = 0
    assert part.specs["a"].likelihood == ("bernoulli" if mode == "1" else "laplace")
    assert part.specs["a"].shape == (4, 6, channels)
    np.testing.assert_allclose(part.arrays["a"][0], expected, atol=1)  # CMYK is kept as a JPEG or converted


def test_files_of_images_are_closed_again(tmp_path):
    square("L", 255, 0).save(tmp_path / "one.png")
    data = datasets.Dataset.from_dict({"a": [str(tmp_path / "one.png")] * NUM}).cast_column("a", datasets.Image())
    before = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    found = hf_datasets._column(data, "a")
    assert len(found) == NUM
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) < before + NUM


def test_a_table_of_classes_is_whole(tmp_path):
    folder(tmp_path, PIL.Image.new("L", (6, 4)))
    config = image_folders.Config(path=str(tmp_path), labels="classes.csv")
    rows = [f"{i},{i % 3 + 9}" for i in range(NUM)]

    def labels(lines, encoding="utf-8"):
        (tmp_path / "classes.csv").write_text("\n".join(["stem,label", *lines]), encoding=encoding)
        return np.concatenate([image_folders.build(config, split).labels for split in source.SPLITS])

    assert sorted(set(labels(rows, "utf-8-sig"))) == [9, 10, 11]
    for wrong in ("4,", "4"):
        with pytest.raises(ValueError, match=r"a class for every image in .*, got none for '4'"):
            labels([*rows[:4], wrong, *rows[5:]])
    with pytest.raises(ValueError, match=r"every image once in .*, got '7' again"):
        labels([*rows, "7,9"])


def test_folders_named_by_numbers_are_those_classes(tmp_path):
    for name in ("front", "side"):
        for i in range(36):
            path = tmp_path / name / str(i % 12 + 1) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.new("L", (4, 4), 20 * (i % 12 + 1)).save(path)
    part = image_folders.build(image_folders.Config(path=str(tmp_path), class_folders=True, mode="L"), "train")
    np.testing.assert_array_equal(part.labels, part.arrays["front"][:, 0, 0, 0] // 20)
    config = dataclasses.replace(image_folders.Config(path=str(tmp_path), class_folders=True), size=(2, 2))
    assert image_folders.build(config, "train").arrays["side"].shape[1:] == (2, 2, 3)
