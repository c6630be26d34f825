"""Cells of AnnData and MuData files, matched by their names."""

import dataclasses

import anndata
import forms
import mudata
import numpy as np
import pytest

from jnf_jax import specs
from jnf_jax.data import multiomics, source


def test_parts_become_modalities_matched_by_the_cells_names(tmp_path):
    part, found, labels = forms.together(forms.write_cells(tmp_path / "cells.h5mu"), multiomics)
    rna, atac = forms.cells(), forms.peaks()
    assert part.specs["rna"].likelihood == "negative_binomial"
    assert part.specs["rna"].library == pytest.approx(part.arrays["rna"].sum(1).mean())
    assert part.specs["atac"] == specs.ModalitySpec(shape=(9,), likelihood="bernoulli")
    order = [int(np.flatnonzero((rna.X.toarray() == row).all(1)).item()) for row in found["rna"]]
    names = rna.obs_names[order]
    np.testing.assert_array_equal(found["atac"], atac[names].X.toarray())
    np.testing.assert_array_equal(np.array(["B", "T"])[labels], rna.obs["kind"].to_numpy()[order])


def test_several_files_and_a_layer(tmp_path):
    forms.cells().write(tmp_path / "rna.h5ad")
    forms.cells(40, 5).write(tmp_path / "protein.h5ad")
    paths = {name: str(tmp_path / f"{name}.h5ad") for name in ("rna", "protein")}
    config = multiomics.Config(paths=paths, layers={"rna": "log"}, label="kind", standardise=False)
    with pytest.raises(
        ValueError, match="modality 'protein' in every example, got none in 'cell40', 'cell41', 'cell42' and 17"
    ):
        multiomics.build(config, "train")
    config = dataclasses.replace(config, incomplete=True)
    part, found, _ = forms.together(config, multiomics)
    assert part.specs["rna"] == specs.ModalitySpec(shape=(7,), scale=0.5)
    np.testing.assert_allclose(np.sort(found["rna"].ravel()), np.sort(forms.cells().layers["log"].ravel()))
    assert sum(int((~multiomics.build(config, split).masks["protein"]).sum()) for split in source.SPLITS) == 20
    for change, message in (
        ({"layers": {"rna": "raw"}}, r"layer of \['log'\] for modality 'rna', got 'raw'"),
        ({"layers": {"dna": "raw"}}, r"layers of modalities of .*, got \['dna'\]"),
        ({"label": "type"}, "got 'type', which no modality has"),
        ({"path": "cells.h5mu"}, "either the path of an .h5mu file or paths"),
    ):
        with pytest.raises(ValueError, match=message):
            multiomics.build(dataclasses.replace(config, **change), "train")


def test_files_of_cells_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "bad.h5mu").write_text("hello")
    with pytest.raises(ValueError, match=r"a file that mudata wrote at .*bad.h5mu"):
        multiomics.build(multiomics.Config(path=str(tmp_path / "bad.h5mu")), "train")
    with pytest.raises(FileNotFoundError, match=r"a file that anndata wrote, got no file at 'none.h5ad'"):
        multiomics.build(multiomics.Config(paths={"a": "none.h5ad"}), "train")
    with mudata.set_options(pull_on_update=False):
        twice = anndata.concat([forms.cells(), forms.cells()])
        mudata.MuData({"rna": twice, "more": twice}).write(tmp_path / "twice.h5mu")
    with pytest.raises(ValueError, match="once in modality 'rna', got 'cell0', 'cell1'"):
        multiomics.build(multiomics.Config(path=str(tmp_path / "twice.h5mu")), "train")


def test_one_count_is_a_real_for_there_is_no_total_to_share_out(tmp_path):
    for name, features in (("rna", 7), ("marker", 1)):
        forms.cells(features=features).write(tmp_path / f"{name}.h5ad")
    paths = {name: str(tmp_path / f"{name}.h5ad") for name in ("rna", "marker")}
    part = multiomics.build(multiomics.Config(paths=paths), "train")
    assert part.specs["rna"].likelihood == "negative_binomial"
    assert part.specs["marker"].likelihood == "gaussian"
