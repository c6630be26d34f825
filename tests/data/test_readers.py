import dataclasses
import decimal
import sys

import datasets
import forms
import numpy as np
import pandas
import pytest

from jnf_jax import specs, units
from jnf_jax.data import arrays, division, hf_datasets, image_folders, multiomics, reading, source, tables


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [(tables, "pandas", "tables"), (hf_datasets, "datasets", "datasets"), (multiomics, "mudata", "omics")],
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, module, package, extra):
    config = forms.write(tmp_path)[module]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"Expected the package '{package}' .*jnf_jax\[{extra}\]"):
        module.build(config, "train")


def test_the_division_keeps_what_was_published_for_testing():
    parts = division.rows(20, division.Division(test_fraction=0.9), test=np.arange(15, 20))
    assert sorted(parts["test"]) == list(range(15, 20))
    assert list(parts["test"]) != list(range(15, 20))  # the first of them may be all of one class
    assert len(parts["validation"]) == 2
    assert sorted(np.concatenate(list(parts.values()))) == list(range(20))


# images


def test_images_are_those_of_their_files_and_their_classes(tmp_path):
    part, found, labels = forms.together(forms.write_images(tmp_path / "images"), image_folders)
    assert part.specs["front"] == specs.ModalitySpec(shape=(6, 5, 3), likelihood="laplace", scale=0.5, support=(0.0, 1.0))
    expected = {}
    rng = np.random.default_rng(0)
    for name, size in (("front", (6, 5)), ("side", (4, 4))):
        for i in range(forms.NUM):
            expected[name, i] = rng.integers(0, 256, (*size, 3), np.uint8).tobytes()
    seen = [tuple(found[name][row].tobytes() for name in ("front", "side")) for row in range(forms.NUM)]
    classes = {(expected["front", i], expected["side", i]): i % 2 for i in range(forms.NUM)}  # cat, dog
    assert [classes[pair] for pair in seen] == labels.tolist()


def test_class_folders_and_grey_images_of_one_size(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(20):
        for name, side in (("front", 6 + i % 2), ("side", 8)):
            image = rng.integers(0, 256, (side, side, 3), np.uint8)
            forms.image(tmp_path / name / ("cat", "dog")[i % 2] / f"{i // 2}.png", image)
    config = image_folders.Config(path=str(tmp_path), class_folders=True, size=(5, 3), mode="L")
    part, found, labels = forms.together(config, image_folders)
    assert part.specs["side"].shape == found["side"].shape[1:] == (5, 3, 1)
    assert np.bincount(labels).tolist() == [10, 10]
    with pytest.raises(ValueError, match=r"one size in modality 'front', got \(6, 6\) in .* and \(7, 7\) in .*`size`"):
        image_folders.build(dataclasses.replace(config, size=None), "train")
    forms.image(tmp_path / "front" / "loose.png", image)
    forms.image(tmp_path / "side" / "loose.png", image)
    with pytest.raises(ValueError, match="folder of its class, got 'loose' outside"):
        image_folders.build(config, "train")


def test_unmatched_images_are_named_or_masked(tmp_path):
    config = forms.write_images(tmp_path)
    (tmp_path / "side" / "007.bmp").unlink()
    with pytest.raises(ValueError, match="modality 'side' in every example, got none in '007': incomplete=True"):
        image_folders.build(config, "train")
    parts = [image_folders.build(dataclasses.replace(config, incomplete=True), split) for split in source.SPLITS]
    assert sum(int((~part.masks["side"]).sum()) for part in parts) == 1
    assert all(set(part.masks) == {"side"} for part in parts)


def test_images_that_cannot_be_read_are_named(tmp_path):
    config = forms.write_images(tmp_path / "images")
    for change, message in (
        ({"path": str(tmp_path / "none")}, "folder of images, got none at .*none"),
        ({"modalities": ("front", "back")}, "folder of images, got none at .*back"),
        ({"labels": "other.csv"}, "'stem' and 'label', got no file at .*other.csv"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            image_folders.build(dataclasses.replace(config, **change), "train")
    forms.write_classes(tmp_path / "images" / "few.csv", {"000": "cat"})
    with pytest.raises(ValueError, match="got none for '001', '002', '003' and 56 more"):
        image_folders.build(dataclasses.replace(config, labels="few.csv"), "train")
    forms.image(tmp_path / "images" / "front" / "000.png", np.zeros((6, 5), np.uint16))
    with pytest.raises(ValueError, match=r"8 bits a channel, got mode 'I;16' in .*000.png"):
        image_folders.build(config, "train")
    (tmp_path / "images" / "front" / "000.png").write_text("hello")
    with pytest.raises(ValueError, match=r"an image at .*000.png"):
        image_folders.build(config, "train")
    forms.image(tmp_path / "images" / "front" / "000.jpg", np.zeros((6, 5), np.uint8))
    with pytest.raises(ValueError, match="once in modality 'front', got '000' again"):
        image_folders.build(config, "train")


# tables


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_columns_become_modalities(tmp_path, ending):
    config = forms.write_table(tmp_path / f"table.{ending}")
    part, found, labels = forms.together(config, tables)
    body = part.specs["body"]
    assert dataclasses.replace(body, mean=None, deviation=None) == specs.ModalitySpec(
        shape=(2,), scale=0.5, labels=("age", "weight")
    )
    assert part.specs["habits"].likelihood == "bernoulli"
    colours = ("blue", "green", "red")
    assert part.specs["eyes"] == specs.ModalitySpec(shape=(1,), likelihood="categorical", num_categories=3, labels=colours)
    train = tables.build(config, "train").arrays["body"]
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(0), 1, rtol=1e-5)
    unscaled, raw, _ = forms.together(dataclasses.replace(config, standardise=False), tables)
    assert unscaled.specs["body"].mean is None
    frame = forms.table()
    order = [int(np.flatnonzero(np.isclose(frame["weight"], row, rtol=1e-6)).item()) for row in raw["body"][:, 1]]
    np.testing.assert_allclose(raw["body"][:, 0], frame["age"].to_numpy()[order])
    part = tables.build(config, "test")
    for i, column in enumerate(("age", "weight")):  # in the units of the file, row by row
        there = units.original(body, part.arrays["body"])[:, i]
        np.testing.assert_allclose(there, frame[column].to_numpy()[part.rows], rtol=1e-5)
    np.testing.assert_array_equal(found["habits"][:, 0], frame["smokes"].to_numpy()[order])
    np.testing.assert_array_equal(np.array(["blue", "green", "red"])[found["eyes"][:, 0]], frame["colour"].to_numpy()[order])
    np.testing.assert_array_equal(np.array(["ill", "well"])[labels], frame["class"].to_numpy()[order])


def test_a_given_scale_counts_standard_deviations(tmp_path):
    config = forms.write_table(tmp_path / "table.csv")
    given = {"body": specs.ModalitySpec(shape=(2,), scale=2000.0, unit="kg")}
    with pytest.raises(ValueError, match="a scale of at most 1 for modality 'body', whose values are standardised, got 2000"):
        tables.build(dataclasses.replace(config, specs=given), "train")
    part = tables.build(dataclasses.replace(config, specs=given, standardise=False), "train")
    assert part.specs["body"] == given["body"]
    given = {"body": dataclasses.replace(given["body"], scale=0.25)}
    found = tables.build(dataclasses.replace(config, specs=given), "train").specs["body"]
    assert (found.scale, found.unit, found.mean is None) == (0.25, "kg", False)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_empty_cells_are_missing_modalities(tmp_path, ending):
    frame = forms.table()
    frame.loc[3, "age"] = np.nan
    frame.loc[[5, 6], "colour"] = None
    config = forms.write_table(tmp_path / f"table.{ending}", frame)
    with pytest.raises(ValueError, match="modality 'body' in every example, got none in '3': incomplete=True"):
        tables.build(config, "train")
    parts = [tables.build(dataclasses.replace(config, incomplete=True), split) for split in source.SPLITS]
    assert {name: sum(int((~part.masks[name]).sum()) for part in parts) for name in parts[0].masks} == {"body": 1, "eyes": 2}
    assert parts[0].specs["eyes"].num_categories == 3


def test_words_that_look_like_nothing_are_words(tmp_path):
    frame = forms.table()
    frame["colour"] = ["None", "NA", "null"][:1] + ["red", "None"] * ((len(frame) - 1) // 2) + ["red"] * ((len(frame) - 1) % 2)
    frame.loc[2, "colour"] = ""
    frame["age"] = frame["age"].astype(object)
    frame.loc[3, "age"] = "NA"  # among numbers it says that there is none
    config = dataclasses.replace(forms.write_table(tmp_path / "table.csv", frame), incomplete=True)
    parts = [tables.build(config, split) for split in source.SPLITS]
    assert parts[0].specs["eyes"].labels == ("None", "red")
    assert {name: sum(int((~part.masks[name]).sum()) for part in parts) for name in ("body", "eyes")} == {"body": 1, "eyes": 1}


def test_a_given_spec_stands_in_for_the_one_read_off(tmp_path):
    config = forms.write_table(tmp_path / "table.csv")
    given = {"body": specs.ModalitySpec(shape=(2,), likelihood="laplace", scale=0.1)}
    found = tables.build(dataclasses.replace(config, specs=given), "train").specs["body"]
    assert dataclasses.replace(found, mean=None, deviation=None) == given["body"]
    with pytest.raises(ValueError, match=r"specs of modalities of .*, got \['bodies'\]"):
        tables.build(dataclasses.replace(config, specs={"bodies": given["body"]}), "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": {"body": ("age", "height")}}, r"columns of .*'weight'.*, got \['height'\]"),
        ({"columns": {}}, "columns for each modality, got none; the table has 'age', 'weight', 'smokes' and 2 more"),
        ({"columns": {"all_": ("age", "colour")}}, r"numbers in the columns of modality 'all_', .* words in \['colour'\]"),
        ({"label": "kind"}, r"got \['kind'\]"),
        ({"columns": {"body": "age"}}, "a tuple of columns for modality 'body', got the text 'age'"),
        ({"path": "table.xlsx"}, "a table .parquet, .csv, .tsv, got 'table.xlsx'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, change, message):
    config = forms.write_table(tmp_path / "table.parquet")
    with pytest.raises(ValueError, match=message):
        tables.build(dataclasses.replace(config, **change), "train")


@pytest.mark.parametrize(
    ("ending", "kind", "message"),
    [
        ("parquet", "datetime", r"columns of modality 'a', got dates in \['day'\]"),
        ("parquet", "date", r"columns of modality 'a', got dates in \['day'\]"),
        ("csv", "datetime", "categories that repeat in modality 'a', got 40 words in 40 examples"),
    ],
)
def test_dates_are_refused(tmp_path, ending, kind, message):
    days = pandas.date_range("2020-01-01", periods=40)
    frame = pandas.DataFrame({"day": days if kind == "datetime" else days.date, "x": np.linspace(0, 1, 40)})
    path = tmp_path / f"table.{ending}"
    frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
    with pytest.raises(ValueError, match=message):
        tables.build(tables.Config(path=str(path), columns={"a": ("day",), "b": ("x",)}), "train")


@pytest.mark.parametrize("dtype", ["int64", "Int64", "int8", "bool"])
def test_columns_of_whole_numbers_alone(tmp_path, dtype):
    whole = np.arange(50) % (2 if dtype == "bool" else 7)
    frame = pandas.DataFrame({"w": whole, "v": whole[::-1], "x": np.linspace(0, 1, 50)})
    frame = frame.astype({"w": dtype, "v": dtype})
    frame.to_parquet(tmp_path / "table.parquet")
    config = tables.Config(path=str(tmp_path / "table.parquet"), columns={"a": ("w", "v"), "b": ("x",)}, standardise=False)
    _, found, _ = forms.together(config, tables)
    assert sorted(found["a"][:, 0]) == sorted(whole)


def test_large_means_and_constants_are_standardised_to_the_last_digit(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=20_000)
    frame = pandas.DataFrame({"large": 1e5 + noise, "time": 1.7e9 + 60.0 * np.arange(20_000), "plain": noise, "fixed": 0.1})
    frame.loc[frame.index[-1], "plain"] = 0.0
    frame.to_parquet(tmp_path / "table.parquet")
    config = tables.Config(path=str(tmp_path / "table.parquet"), columns={"a": tuple(frame.columns)})
    train = tables.build(config, "train").arrays["a"]
    assert train.dtype == np.float32
    np.testing.assert_allclose(train.mean(0, dtype=float), 0, atol=1e-6)
    np.testing.assert_allclose(train[:, :3].std(0, dtype=float), 1, atol=1e-6)
    np.testing.assert_allclose(train[:, 3], 0, atol=1e-6)
    assert len(np.unique(train[:, 1])) == len(train)


def test_files_that_are_no_tables_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="a table, got no file at"):
        tables.build(tables.Config(path=str(tmp_path / "none.csv"), columns=forms.COLUMNS), "train")
    (tmp_path / "bad.parquet").write_text("hello")
    with pytest.raises(ValueError, match=r"a table at .*bad.parquet.* pandas cannot read"):
        tables.build(tables.Config(path=str(tmp_path / "bad.parquet"), columns=forms.COLUMNS), "train")


# Hugging Face data sets


def test_features_become_modalities(tmp_path):
    config = dataclasses.replace(forms.write_dataset(tmp_path / "set"), standardise=False)
    part, found, labels = forms.together(config, hf_datasets)
    assert part.specs["scan"] == specs.ModalitySpec(shape=(5, 4, 1), likelihood="laplace", scale=0.5, support=(0.0, 1.0))
    assert part.specs["code"] == specs.ModalitySpec(shape=(3,), scale=0.5)
    rows = forms.rows()
    codes = np.asarray(rows["code"], np.float32)
    order = [int(np.flatnonzero((codes == code).all(1)).item()) for code in found["code"]]
    np.testing.assert_array_equal(found["scan"][..., 0], np.stack([np.asarray(rows["scan"][i]) for i in order]))
    np.testing.assert_array_equal(labels, np.asarray(rows["class"])[order])


def test_the_published_test_split_is_kept(tmp_path):
    whole = datasets.DatasetDict(
        {name: datasets.Dataset.from_dict({"a": (np.arange(num) + first).astype(float), "b": np.ones((num, 2)).tolist()})
         for name, num, first in (("train", 40, 2), ("eval", 10, 100))}
    )  # fmt: skip
    whole.save_to_disk(tmp_path / "set")
    config = hf_datasets.Config(path=str(tmp_path / "set"), columns={"a": "a", "b": "b"}, test="eval", standardise=False)
    assert sorted(hf_datasets.build(config, "test").arrays["a"][:, 0]) == list(range(100, 110))
    assert len(hf_datasets.build(config, "validation")) == 5
    assert hf_datasets.build(config, "train").arrays["a"].max() < 100
    with pytest.raises(ValueError, match=r"published split of \['train', 'eval'\], got 'test'"):
        hf_datasets.build(dataclasses.replace(config, test="test"), "train")


def test_ragged_missing_and_unknown_columns_are_named(tmp_path):
    path = tmp_path / "set"
    values = {"a": [[1.0, 2.0]] * 20 + [None], "b": [[1.0]] * 20 + [[1.0, 2.0]], "c": [1.5, 2.5, 3.5] * 7}
    datasets.Dataset.from_dict(values).save_to_disk(path)
    config = hf_datasets.Config(path=str(path), columns={"x": "a", "y": "c"}, incomplete=True)
    assert sum(int((~hf_datasets.build(config, split).masks["x"]).sum()) for split in source.SPLITS) == 1
    for change, message in (
        ({"incomplete": False}, "modality 'x' in every example, got none in '20'"),
        ({"columns": {"x": "b"}}, r"shape \(1,\) in modality 'x', got float64 \(2,\) in example 20"),
        ({"columns": {"x": "d"}}, r"columns of \['a', 'b', 'c'\], got \['d'\]"),
        ({"path": str(tmp_path)}, "folder that `save_to_disk` wrote"),
    ):
        with pytest.raises(ValueError, match=message):
            hf_datasets.build(dataclasses.replace(config, **change), "train")


# values and splits, of any reader


def test_words_are_classes_by_their_place():
    np.testing.assert_array_equal(reading.classes(np.array(["b", "a", "b"])), [1, 0, 1])
    np.testing.assert_array_equal(reading.classes(np.array([3, 7, 3])), [3, 7, 3])
    assert len(set(reading.classes(np.array([1, 2**32 + 1, 5])))) == 3
    np.testing.assert_array_equal(reading.classes(np.array(["10", "2", "9"])), [10, 2, 9])
    np.testing.assert_array_equal(reading.classes(np.array(["01", "1", "2"])), [0, 1, 2])  # two words
    np.testing.assert_array_equal(reading.classes(np.array(["1998", "2010", "1998"])), [0, 1, 0])  # years are names
    np.testing.assert_array_equal(reading.classes(np.array([10.0, 2.0, 0.0])), [10, 2, 0])
    np.testing.assert_array_equal(reading.classes(np.array([10, -1, 2])), [2, 0, 1])
    np.testing.assert_array_equal(reading.classes(np.array([True, False])), [1, 0])


def test_words_of_a_given_spec_have_the_places_of_its_labels(tmp_path):
    words = np.array(["low", "medium", "high"])[np.arange(forms.NUM) % 3]
    frame = forms.table().assign(colour=words, age=np.arange(forms.NUM) % 3)
    config = forms.write_table(tmp_path / "table.csv", frame)
    given = specs.ModalitySpec(shape=(1,), likelihood="categorical", num_categories=3, labels=("low", "medium", "high"))
    config = dataclasses.replace(config, specs={"eyes": given}, standardise=False)
    part = tables.build(config, "train")
    np.testing.assert_array_equal(part.arrays["eyes"][:, 0], part.arrays["body"][:, 0].astype(int))
    few = dataclasses.replace(given, num_categories=2, labels=("low", "high"))
    with pytest.raises(ValueError, match=r"words of \('low', 'high'\) in modality 'eyes', got 'medium'"):
        tables.build(dataclasses.replace(config, specs={"eyes": few}), "train")


def test_a_stray_word_among_numbers_is_named(tmp_path):
    ages = [str(20 + i % 60) for i in range(500)]
    ages[7] = "?"
    frame = pandas.DataFrame({"age": ages, "x": np.linspace(0, 1, 500)})
    frame.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(ValueError, match=r"numbers or words in modality 'a', got numbers and '\?'"):
        tables.build(tables.Config(path=str(tmp_path / "table.csv"), columns={"a": ("age",), "b": ("x",)}), "train")
    stages = frame.assign(age=np.array(["1", "2", "3A", "3B"])[np.arange(500) % 4])
    stages.to_csv(tmp_path / "table.csv", index=False)
    part = tables.build(tables.Config(path=str(tmp_path / "table.csv"), columns={"a": ("age",), "b": ("x",)}), "train")
    assert part.specs["a"].labels == ("1", "2", "3A", "3B")
    codes = frame.assign(age=[*map(str, range(40)), "1A"] * 12 + ["1A"] * 8)
    codes.to_csv(tmp_path / "table.csv", index=False)
    config = tables.Config(path=str(tmp_path / "table.csv"), columns={"a": ("age",), "b": ("x",)})
    with pytest.raises(ValueError, match="got numbers and '1A': a spec with labels keeps all as words"):
        tables.build(config, "train")
    labels = (*map(str, range(40)), "1A")
    given = {"a": specs.ModalitySpec(shape=(1,), likelihood="categorical", num_categories=41, labels=labels)}
    assert tables.build(dataclasses.replace(config, specs=given), "train").arrays["a"].max() == 40


def test_pandas_categories_of_numbers_are_words():
    frame = pandas.DataFrame({"stage": pandas.Categorical([1, 2, 3, 1])})  # not every file keeps them as such
    assert tables._array("a", frame).tolist() == [["1"], ["2"], ["3"], ["1"]]


def test_rows_longer_than_the_header_are_refused(tmp_path):
    lines = ["a,b,c", *(f"{i},{i + 100},{i + 200}," for i in range(40))]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="rows have more fields than the header"):
        tables.build(tables.Config(path=str(tmp_path / "table.csv"), columns={"u": ("a",), "v": ("b",)}), "train")


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_booleans_beside_empty_cells_are_numbers(tmp_path, ending):
    said = pandas.Series([bool(i % 2) for i in range(40)], dtype=object)
    said[3] = None
    frame = pandas.DataFrame({"s": said, "t": said[::-1].to_numpy(), "x": np.linspace(0, 1, 40)})
    path = tmp_path / f"table.{ending}"
    frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
    config = tables.Config(path=str(path), columns={"s": ("s", "t"), "x": ("x",)}, incomplete=True)
    assert tables.build(config, "train").specs["s"] == specs.ModalitySpec(shape=(2,), likelihood="bernoulli", labels=("s", "t"))


def test_decimals_are_numbers(tmp_path):
    frame = pandas.DataFrame({"price": [decimal.Decimal(i) / 4 for i in range(40)], "x": np.linspace(0, 1, 40)})
    frame.to_parquet(tmp_path / "table.parquet")
    config = tables.Config(path=str(tmp_path / "table.parquet"), columns={"a": ("price",), "b": ("x",)}, standardise=False)
    _, found, _ = forms.together(config, tables)
    assert sorted(found["a"][:, 0]) == [i / 4 for i in range(40)]


def test_what_is_not_finite_is_named_by_its_row(tmp_path):
    codes = np.random.default_rng(0).normal(size=(40, 2))
    codes[17, 1] = np.nan
    datasets.Dataset.from_dict({"a": codes.tolist(), "b": np.arange(40.0)}).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match="finite values for modality 'a', got others in '17'"):
        hf_datasets.build(hf_datasets.Config(path=str(tmp_path / "set"), columns={"a": "a", "b": "b"}), "train")


def test_readers_split_as_arrays_do(tmp_path):
    config = dataclasses.replace(forms.write_table(tmp_path / "table.csv"), standardise=False)
    column = np.arange(forms.NUM)
    whole = {"body": np.stack([column, column], 1).astype(np.float32)}
    expected = arrays.splits({"body": specs.ModalitySpec(shape=(2,))}, whole)
    frame = forms.table()
    for split, part in expected.items():
        np.testing.assert_allclose(
            tables.build(config, split).arrays["body"][:, 0], frame["age"].to_numpy()[part.arrays["body"][:, 0].astype(int)]
        )


def test_a_given_mean_is_what_values_are_standardised_by(tmp_path):
    config = forms.write_table(tmp_path / "table.csv")
    given = {"body": specs.ModalitySpec(shape=(2,), scale=0.5, mean=(50.0, 70.0), deviation=(20.0, 10.0))}
    part = tables.build(dataclasses.replace(config, specs=given), "train")
    assert part.specs["body"] == given["body"]
    frame = forms.table()
    expected = (frame[["age", "weight"]].to_numpy()[part.rows] - [50, 70]) / [20, 10]
    np.testing.assert_allclose(part.arrays["body"], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no mean in the spec of 'body', whose values are not standardised"):
        tables.build(dataclasses.replace(config, specs=given, standardise=False), "train")
