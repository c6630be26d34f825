"""An evaluation as tables on the screen."""

import numpy as np
import rich.console
import rich.table


def show(result: dict) -> None:
    """Prints every part that an `evaluation.json` holds, and warnings for chains that cannot be trusted."""
    console = rich.console.Console()
    if "classifier_accuracy" in result:
        _print(console, "Classifiers on real test data", ["modality", "accuracy"], result["classifier_accuracy"].items())
    if "coherence" in result:
        _coherence(console, result)
    if "prediction" in result:
        _prediction(console, result["prediction"])
    _distances(console, result)
    if "log_likelihood" in result:
        _likelihood(console, result)
    chains = result.get("hmc", {})
    for title, part in (("Chains behind the draws", chains), ("Long chains", chains.get("long_chains", {}))):
        if part.get("by_subset"):
            _chains(console, title, part)


def _coherence(console: rich.console.Console, result: dict) -> None:
    diversity = result.get("diversity", {}).get("by_subset", {})
    targets = list(result["classifier_accuracy"])
    rows = []
    for subset, values in result["coherence"]["by_subset"].items():
        cells = [f"{values[t]:.3f}" if t in values else "" for t in targets]
        varied = f"{np.mean(list(diversity[subset].values())):.2f}" if subset in diversity else ""
        rows.append([subset, *cells, f"{np.mean(list(values.values())):.3f}", varied])
    _print(console, "Conditional coherence", ["given", *targets, "mean", "diversity"], rows)
    sizes = result["coherence"]["by_size"]
    rows = [[f"from {size}", f"{value:.3f}"] for size, value in sizes.items()]
    for density, value in joint_coherences(result).items():
        kind = "the prior" if density == "prior" else f"a {density} fitted to the codes"
        rows.append([f"joint, from {kind}", f"{value:.3f}"])
    _print(console, "Coherence by subset size", ["", "coherence"], rows)


def _prediction(console: rich.console.Console, part: dict) -> None:
    targets = part["kinds"]
    rows = [[s, *(number(values.get(t), ".3f") for t in targets)] for s, values in part["by_subset"].items()]
    _print(console, "Prediction by the mean of draws", ["given", *(f"{t}: {kind}" for t, kind in targets.items())], rows)


def from_all_others(evaluation: dict, target: str) -> float | None:
    """Returns how well a modality is predicted from all others; None where that was not measured."""
    by_subset = evaluation.get("prediction", {}).get("by_subset", {})
    measured = evaluation["log_likelihood"]
    names = [n for n in measured if f"rest given {n}" in measured and f"{n}_standard_error" in measured]
    return by_subset.get("+".join(name for name in names if name != target), {}).get(target)


def joint_coherences(evaluation: dict) -> dict[str, float]:
    """Returns density -> joint coherence of its draws, the prior first; evaluations made before models had marginals have other names."""
    if "joint_coherence_by_density" in evaluation:
        return evaluation["joint_coherence_by_density"]
    found = {"prior": evaluation.get("joint_coherence"), "mixture": evaluation.get("joint_coherence_fitted", {}).get("mixture")}
    return {density: value for density, value in found.items() if value is not None}


def _distances(console: rich.console.Console, result: dict) -> None:
    if "subset_score" in result:
        rows = [
            [f"from {size}", f"{score['mean']:.2f} ± {score['standard_error']:.2f}"]
            for size, score in result["subset_score"]["by_size"].items()
        ]
        _print(console, "Score of subset posteriors: log q(z* | x_S) of codes z* ~ q(z | X), nats", ["", "mean"], rows)
    if "frechet" in result:
        part = result["frechet"]
        title = f"Fréchet distance in the classifiers' features ({part['num_generated']} generated, {part['num_real']} real)"
        rows = [
            [f"from {size}", *(number(part[k]["by_size"].get(size), ".1f") for k in _kinds(part))]
            for size in part["distance"]["by_size"]
        ]
        _print(console, title, ["", *_kinds(part)], rows)
    if "fid" in result:
        part = result["fid"]
        title = f"FID of {part['modality']}, Inception-v3 ({part['num_generated']} generated, {part['num_real']} real)"
        _print(console, title, ["", "FID"], [[f"from {size}", f"{value:.1f}"] for size, value in part["by_size"].items()])
    if "reconstruction" in result:
        rows = [
            [
                name,
                f"{v['mean_squared_error']:.4f}",
                f"{v['structural_similarity']:.3f}" if "structural_similarity" in v else "",
            ]
            for name, v in result["reconstruction"].items()
        ]
        _print(console, "Reconstruction from all modalities", ["modality", "mean squared error", "SSIM"], rows)


def _kinds(part: dict) -> list[str]:
    return [kind for kind in ("distance", "extrapolated", "by_class") if kind in part]


def _likelihood(console: rich.console.Console, result: dict) -> None:
    values = result["log_likelihood"]
    rows = [
        [name, f"{value:.1f} ± {values[f'{name}_standard_error']:.1f}"]
        for name, value in values.items()
        if f"{name}_standard_error" in values
    ]
    title = f"Log likelihood, nats (K = {values['num_importance']}, {values['num_observations']} observations)"
    _print(console, title, ["of", "value"], [*rows, ["joint ELBO", f"{result['elbo']:.1f}"]])


def number(value: float | None, form: str) -> str:
    """Returns a number in its form; a dash where it could not be told."""
    return "-" if value is None else format(value, form)


def _chains(console: rich.console.Console, title: str, part: dict) -> None:
    threshold = part["rhat_threshold"]
    # 80 columns wide with four modalities
    columns = ["given", "accepted", "diverged", "R-hat", "largest", f"< {threshold}", "ESS", "improper"]
    rows = [
        [
            subset,
            f"{s['acceptance']:.2f}",
            str(s["divergences"]),
            number(s["rhat_median"], ".3f"),
            number(s["rhat_largest"], ".3f"),
            number(s["share_below"], ".3f"),
            number(s["ess_median"], ".0f"),
            str(s["improper"]),
        ]
        for subset, s in part["by_subset"].items()
    ]
    _print(console, title, columns, rows)
    for subset, summary in part["by_subset"].items():
        for reason, observations in summary["untrusted"].items():
            if observations:
                shown = ", ".join(map(str, observations[:12])) + (", .." if len(observations) > 12 else "")
                word = "observation" if len(observations) == 1 else "observations"
                console.print(
                    f"warning: given {subset}, do not trust {len(observations)} {word} ({reason}): number {shown}",
                    style="yellow",
                    highlight=False,
                    soft_wrap=True,
                )


def _print(console: rich.console.Console, title: str, columns: list[str], rows) -> None:
    table = rich.table.Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, str) else f"{cell:.3f}" for cell in row))
    console.print(table)
