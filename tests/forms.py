"""Small files in the forms that people have their data in, and the configs that read them."""

import csv

import anndata
import datasets
import mudata
import numpy as np
import pandas
import PIL.Image
import scipy.sparse

from jnf_jax import specs
from jnf_jax.data import arrays, hf_datasets, image_folders, joined, multiomics, source, tables

NUM = 60


def together(config, module):
    """All three parts as one: every example once, in some order."""
    parts = [module.build(config, split) for split in source.SPLITS]
    stack = lambda of: np.concatenate([of(part) for part in parts])
    found = {name: stack(lambda part, name=name: part.arrays[name]) for name in parts[0].specs}
    return parts[0], found, None if parts[0].labels is None else stack(lambda part: part.labels)


def write(root):
    """Returns module -> the config of a file that was written under `root`."""
    return {
        arrays: write_arrays(root / "mine.npz"),
        image_folders: write_images(root / "images"),
        tables: write_table(root / "table.parquet"),
        hf_datasets: write_dataset(root / "dataset"),
        multiomics: write_cells(root / "cells.h5mu"),
        joined: write_joined(root / "joined"),
    }


def write_joined(root):
    """Images and a table of the same examples, its rows in another order."""
    images = write_images(root / "images")
    frame = table().assign(name=[f"{i:03}" for i in range(NUM)]).sample(frac=1, random_state=0)
    frame.to_csv(root / "table.csv", index=False)
    read = tables.Config(path=str(root / "table.csv"), columns=COLUMNS, key="name")
    return joined.Config(readers={"scans": images, "table": read})


def write_arrays(path):
    rng = np.random.default_rng(0)
    np.savez(path, a=rng.normal(size=(100, 3)), b=rng.integers(0, 2, (100, 2, 2)), labels=np.arange(100) % 4)
    bits = specs.ModalitySpec(shape=(2, 2), likelihood="bernoulli")
    return arrays.Config(path=str(path), specs={"a": specs.ModalitySpec(shape=(3,)), "b": bits})


def write_images(root, num=NUM):
    """Front and side views, front as .png and side as .bmp, with a table of classes."""
    rng = np.random.default_rng(0)
    for name, ending, size in (("front", "png", (6, 5)), ("side", "bmp", (4, 4))):
        (root / name).mkdir(parents=True)
        for i in range(num):
            image(root / name / f"{i:03}.{ending}", rng.integers(0, 256, (*size, 3), np.uint8))
    write_classes(root / "classes.csv", {f"{i:03}": ("cat", "dog")[i % 2] for i in range(num)})
    return image_folders.Config(path=str(root), labels="classes.csv")


def image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


def write_classes(path, classes):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("stem", "label"), *classes.items()])


def table(num=NUM):
    """Two numbers, a yes or no, a word and a class."""
    rng = np.random.default_rng(0)
    return pandas.DataFrame(
        {
            "age": rng.integers(20, 90, num),
            "weight": 70 + 10 * rng.normal(size=num),
            "smokes": rng.integers(0, 2, num).astype(bool),
            "colour": np.array(["red", "green", "blue"])[np.arange(num) % 3],
            "class": np.array(["ill", "well"])[np.arange(num) % 2],
        }
    )


COLUMNS = {"body": ("age", "weight"), "habits": ("smokes",), "eyes": ("colour",)}


def write_table(path, frame=None):
    frame = table() if frame is None else frame
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return tables.Config(path=str(path), columns=COLUMNS, label="class")


def rows(num=NUM, seed=0):
    """Columns of a data set: a picture, a vector and a class."""
    rng = np.random.default_rng(seed)
    pictures = [PIL.Image.fromarray(rng.integers(0, 256, (5, 4), np.uint8)) for _ in range(num)]
    return {"scan": pictures, "code": rng.normal(size=(num, 3)).tolist(), "class": list(np.arange(num) % 3)}


def write_dataset(path, **options):
    features = datasets.Features(
        {"scan": datasets.Image(), "code": datasets.List(datasets.Value("float32")), "class": datasets.Value("int64")}
    )
    datasets.Dataset.from_dict(rows(**options), features=features).save_to_disk(path)
    return hf_datasets.Config(path=str(path), columns={"scan": "scan", "code": "code"}, label="class")


def cells(num=NUM, features=7, names=None):
    """Counts of cells, sparse, with a class."""
    rng = np.random.default_rng(features)
    found = anndata.AnnData(scipy.sparse.csr_matrix(rng.poisson(5, (num, features)).astype(np.float32)))
    found.obs_names = [f"cell{i}" for i in range(num)] if names is None else names
    found.layers["log"] = np.log1p(found.X.toarray())
    found.obs["kind"] = np.array(["T", "B"])[np.arange(num) % 2]
    return found


def peaks(num=NUM):
    """What is open in cells: 0 or 1, in another order of the cells."""
    rng = np.random.default_rng(1)
    names = [f"cell{i}" for i in rng.permutation(num)]
    found = anndata.AnnData(scipy.sparse.csr_matrix(rng.integers(0, 2, (num, 9)).astype(np.float32)))
    found.obs_names = names
    return found


def write_cells(path):
    with mudata.set_options(pull_on_update=False):
        mudata.MuData({"rna": cells(), "atac": peaks()}).write(path)
    return multiomics.Config(path=str(path), label="kind")
