"""Imports point one way: each layer knows only those before it."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LAYERS = [
    ["specs", "types", "keys", "subsets", "configs", "cache", "compiling"],
    ["data"],
    ["likelihoods"],
    ["distributions", "units"],
    ["objectives"],
    ["networks"],
    ["flows"],
    ["projectors", "marginals"],
    ["posteriors"],
    ["models"],
    ["training"],
    ["metrics", "predictions"],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FILES = sorted((ROOT / "jnf_jax").rglob("*.py"))
OWNERS = {  # a package -> the files that alone may import it
    "blackjax": {"posteriors/hmc.py", "posteriors/smc.py"},
    "orbax": {"training/checkpoint.py"},
    "safetensors": {"training/weights.py"},
    "huggingface_hub": {"training/hub.py"},
    "arviz": {"metrics/arviz.py"},
    "distrax": {"distributions.py", "flows/coupling.py", "likelihoods/bernoulli.py", "likelihoods/categorical.py"},
}
# a file with a Config is a model; what others share has none
CONCRETE_MODELS = {p.stem for p in (ROOT / "jnf_jax/models").glob("*.py") if "class Config(" in p.read_text()}


def imported(path):
    """Full names of all modules and names that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(path):
    parts = path.relative_to(ROOT / "jnf_jax").with_suffix("").parts
    return parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_layer_imports_only_those_before_it(path):
    relative = str(path.relative_to(ROOT / "jnf_jax"))
    if relative == "__init__.py":
        assert set(imported(path)) == {"jnf_jax.compiling.use_compilation_cache", "jnf_jax.specs.ModalitySpec"}
        return
    own = layer_of(path)
    assert own in RANK, f"{own} has no place in the layers"
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "experiments":
            pytest.fail(f"{relative} imports {name}")
        if parts[0] in OWNERS:
            assert relative in OWNERS[parts[0]], f"{relative} imports {name}"
        if parts[0] == "jnf_jax" and len(parts) > 1:  # the package alone is its version
            assert RANK[parts[1]] <= RANK[own], f"{relative} imports {name}"
            if own == "models" and parts[1] == "models":
                assert parts[2] not in CONCRETE_MODELS, f"{relative} imports the model {name}"
            if own in ("training", "metrics") and parts[1] == "models":
                assert parts[2] == "base", f"{relative} imports {name}"


@pytest.mark.parametrize("path", [*(ROOT / "jnf_jax/data").glob("*.py"), ROOT / "jnf_jax/specs.py"], ids=lambda p: p.name)
def test_data_know_no_jax(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"jax", "flax"}


def test_training_imports_nothing_that_it_does_not_need():
    """Each of these takes from a tenth of a second to one, which everyone who starts a training would wait for."""
    unneeded = (
        "distrax",
        "tensorflow_probability",
        "blackjax",
        "orbax",
        "scipy",
        "sklearn",
        "matplotlib",
        "tensorflow_datasets",
    )
    code = f"import sys; import jnf_jax.models.jnf, jnf_jax.training.stages; print([m for m in {unneeded} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
