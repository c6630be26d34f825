"""The README.md of a folder of shared weights: what the model is, how good it is, and how to read it."""

import pathlib
from collections.abc import Iterator, Mapping

import jax

import jnf_jax
from experiments import experiment, tables
from jnf_jax import configs, types
from jnf_jax import specs as specs_lib
from jnf_jax.training import files, hub, weights

NAME = "README.md"


def write(
    folder: pathlib.Path,
    config: experiment.Config,
    specs: specs_lib.Specs,
    params: types.Params,
    packages: Mapping[str, str],
    evaluation: Mapping | None,
) -> str:
    """Returns the card.

    Args:
      folder: with the files whose checksums it lists.
      config: of the experiment.
      specs: the modalities.
      params: of the model, for their number.
      packages: package -> version that it was trained with.
      evaluation: what `jnf-jax evaluate` measured; None where nothing was.
    """
    data, model = (type(part).__module__.rpartition(".")[2] for part in (config.data, config.model))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    listed = [path for name in sorted(hub.FILES) if name != NAME and (path := folder / name).exists()]
    parts = [
        f"---\nlibrary_name: jnf_jax\ntags:\n- jax\n- multimodal\n- variational-autoencoder\n- {model.replace('_', '-')}\n---",
        f"# {model} on {data}",
        f"A multimodal variational autoencoder of {size:,} parameters. It generates any of its modalities from any others.",
        _use(next(iter(specs), ""), configs.foreign_packages(configs.to_json([config, specs]))),
        "## Modalities",
        table(["modality", "shape", "likelihood"], [[f"`{n}`", str(s.shape), s.likelihood_name] for n, s in specs.items()]),
        "## Training",
        table(["", ""], [[f"`{name}`", value] for name, value in _training(config)]),
        "## Measured",
        table(["on test data", "value"], measured(evaluation))
        if evaluation
        else "Nothing yet: `jnf-jax evaluate` measures it.",
        "## Files",
        table(["file", "sha256"], [[f"`{path.name}`", f"`{files.sha256(path)}`"] for path in listed]),
        "## Versions",
        table(["package", "version"], [["jnf_jax", jnf_jax.__version__], *map(list, packages.items())]),
    ]
    return "\n\n".join(parts) + "\n"


def measured(evaluation: Mapping) -> list[list[str]]:
    """Returns the rows of the table of an `evaluation.json`: the means, not the single subsets."""
    rows = []
    by_size = lambda part: evaluation.get(part, {}).get("by_size", {})
    for size, value in by_size("coherence").items():
        rows.append([f"coherence of what is generated from {_modalities(size)}", f"{value:.3f}"])
    if "joint_coherence" in evaluation:
        rows.append(["coherence of draws of `sample_prior`", f"{evaluation['joint_coherence']:.3f}"])
    for name, kind in evaluation.get("prediction", {}).get("kinds", {}).items():
        if (value := tables.from_all_others(evaluation, name)) is not None:
            rows.append([f"{name} predicted from all others, {kind}", f"{value:.3f}"])
    for size, score in by_size("subset_score").items():
        text = f"{score['mean']:.2f} ± {score['standard_error']:.2f}"
        rows.append([f"score of posteriors given {_modalities(size)}, nats", text])
    likelihood = evaluation.get("log_likelihood", {})
    if "all" in likelihood:
        spread = likelihood.get("all_standard_error")
        rows.append(
            ["log likelihood of all modalities, nats", f"{likelihood['all']:.1f}" + (f" ± {spread:.1f}" if spread else "")]
        )
    if "elbo" in evaluation:
        rows.append(["joint ELBO, nats", f"{evaluation['elbo']:.1f}"])
    chains = evaluation.get("hmc", {})
    for name, part in (("", chains), ("long ", chains.get("long_chains", {}))):
        shares = [s["share_below"] for s in part.get("by_subset", {}).values() if s.get("share_below") is not None]
        if shares:
            share = sum(shares) / len(shares)
            rows.append([f"share of observations whose {name}chains have R-hat below {part['rhat_threshold']}", f"{share:.3f}"])
    if "num_observations" in evaluation and "coherence" in evaluation:
        rows.append(["observations behind coherence", str(evaluation["num_observations"])])
    return rows


def _modalities(size: str) -> str:
    return "1 modality" if size == "1" else f"{size} modalities"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _use(modality: str, foreign: list[str]) -> str:
    modules = (
        f"It needs {', '.join(foreign)}, and the environment variable `JNF_MODULES={','.join(foreign)}`.\n\n" if foreign else ""
    )
    return f"""## Use

{modules}```bash
jnf-jax sample --workdir FOLDER --observe {modality}    # where the data are there
```

```python
import jax
from jnf_jax.training import hub, weights

model, params = weights.load(hub.from_hub("USER/NAME"))  # or weights.load("FOLDER")
z = model.sample_prior(params, jax.random.key(0), num_samples=4)
generated = model.decode(params, z)
```

`safetensors.numpy.load_file("{weights.WEIGHTS}")` returns the arrays with numpy alone."""


def _training(config: experiment.Config) -> Iterator[tuple[str, str]]:
    """Yields the settings of the table: the data's own, and of the rest what people set first."""
    yield "seed", str(config.seed)
    for name, value in configs.to_json(config.data).items():
        if name != "specs":  # they have a table of their own
            yield f"data.{name}", str(value)
    for name in ("latent_dim", "beta"):
        if hasattr(config.model, name):
            yield f"model.{name}", str(getattr(config.model, name))
    for stage, settings in config.training.items():
        for name in ("num_steps", "batch_size", "learning_rate"):
            yield f"training.{stage}.{name}", str(getattr(settings, name))
