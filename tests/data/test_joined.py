"""Rows of several readers, matched by their names."""

import dataclasses

import forms
import numpy as np
import pytest

from jnf_jax import units
from jnf_jax.data import arrays, image_folders, joined, source, tables


def joined_config(tmp_path, **options):
    return dataclasses.replace(forms.write_joined(tmp_path), **options)


def test_rows_of_several_readers_are_matched_by_their_names(tmp_path):
    config = joined_config(tmp_path)
    frame = forms.table()
    images = image_folders.read(config.readers["scans"])
    seen = []
    for split in source.SPLITS:
        part = joined.build(config, split)
        assert list(part.specs) == ["front", "side", "body", "habits", "eyes"]
        numbers = part.rows.astype(int)  # 000, 001, ..
        np.testing.assert_array_equal(part.arrays["front"], images.arrays["front"][numbers])
        weights = units.original(part.specs["body"], part.arrays["body"])[:, 1]
        np.testing.assert_allclose(weights, frame["weight"].to_numpy()[numbers], rtol=1e-5)
        np.testing.assert_array_equal(part.labels, numbers % 2)
        seen += part.rows.tolist()
    assert sorted(seen) == [f"{i:03}" for i in range(forms.NUM)]


def test_an_example_of_one_reader_alone_lacks_what_the_others_have(tmp_path):
    config = joined_config(tmp_path)
    path = tmp_path / "table.csv"
    lines = path.read_text().splitlines()
    left_out = lines[3].split(",")[-1]
    path.write_text("\n".join([*lines[:3], *lines[4:]]) + "\n")
    with pytest.raises(ValueError, match=f"modality 'body' in every example, got none in '{left_out}'"):
        joined.build(config, "train")
    config = dataclasses.replace(config, incomplete=True)
    parts = [joined.build(config, split) for split in source.SPLITS]
    lacking = np.concatenate([part.rows[~part.having(["body", "eyes"])] for part in parts])
    assert lacking.tolist() == [left_out]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda readers: {}, "readers to join, got none"),
        (
            lambda readers: readers | {"again": readers["scans"]},
            r"different names, got \['front', 'side'\] again in reader 'again'",
        ),
        (
            lambda readers: readers | {"table": dataclasses.replace(readers["table"], key=None)},
            "names of examples in reader 'table', got row",
        ),
        (
            lambda readers: readers | {"table": dataclasses.replace(readers["table"], seed=3)},
            "Expected seed beside the readers",
        ),
        (
            lambda readers: readers | {"table": dataclasses.replace(readers["table"], label="class")},
            r"in one reader, got them in \['scans'",
        ),
        (
            lambda readers: readers | {"table": arrays.Config(path="mine.npz")},
            "config of a reader of files for 'table', got jnf_jax.data.arrays",
        ),
    ],
)
def test_readers_that_cannot_be_joined_are_named(tmp_path, change, message):
    config = joined_config(tmp_path)
    with pytest.raises(ValueError, match=message):
        joined.build(dataclasses.replace(config, readers=change(dict(config.readers))), "train")


def test_an_example_without_a_class_is_named(tmp_path):
    config = joined_config(tmp_path, incomplete=True)
    path = tmp_path / "table.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[1].rpartition(",")[0] + ",more\n")
    with pytest.raises(ValueError, match="a class for every example in reader 'scans', got none for 'more'"):
        joined.build(config, "train")


def test_readers_that_share_no_name_are_told(tmp_path):
    config = joined_config(tmp_path, incomplete=True)
    path = tmp_path / "table.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *(line.rpartition(",")[0] + f",p{i}" for i, line in enumerate(lines))]) + "\n")
    with pytest.raises(
        ValueError, match="that another reader has too, got '000', '001', '002' and 57 more in 'scans', and 'p0'"
    ):
        joined.build(config, "train")


def test_names_out_of_order_stay_with_their_rows(tmp_path):
    frame = forms.table().assign(name=[f"p{i}" for i in range(forms.NUM)])  # p10 comes before p2
    frame.to_csv(tmp_path / "table.csv", index=False)
    weights = dict(zip(frame["name"], frame["weight"], strict=True))
    for key in ("name", None):
        config = tables.Config(path=str(tmp_path / "table.csv"), columns={"body": ("age", "weight")}, key=key)
        joint = joined.Config(readers={"one": config}) if key else config
        part = (joined if key else tables).build(joint, "test")
        there = units.original(part.specs["body"], part.arrays["body"])[:, 1]
        expected = [weights[row] if key else frame["weight"][row] for row in part.rows.tolist()]
        np.testing.assert_allclose(there, expected, rtol=1e-5)
