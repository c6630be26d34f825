"""Tables of speed and memory, out of the JSON under experiments/benchmarks."""

from collections.abc import Iterable

import table_text

BENCHMARKS = table_text.ROOT / "experiments" / "benchmarks"
README_ROWS = (
    "train/polymnist_512/joint",
    "draws/polymnist_512/1",
    "subset/polymnist_32/2_reference",
    "subset/polymnist_32/2_default",
    "subset/polymnist_512/2_default",
    "start/polymnist_32/train_cold",
    "start/polymnist_32/train_cached",
    "memory/train_polymnist_512_joint",
)
"""The rows that the README shows, those where we are behind too."""


def speed(prefix: str = "") -> str:
    """Speed beside MultiVae; a ratio above 1 says that we are ahead."""
    rows = table_text.read(BENCHMARKS / "results.json")["rows"]
    return _speed(row for row in rows if row["name"].startswith(prefix))


def accelerator(prefix: str = "") -> str:
    """Speed on an accelerator, beside MultiVae's where it was asked; only rows that were measured."""
    rows = []
    for row in table_text.read(BENCHMARKS / "accelerator.json")["rows"]:
        if not row["name"].startswith(prefix):
            continue
        size = (
            f"batch {row['batch_size']:,}, {row['precision'].replace('float32', 'TF32')}"
            if "batch_size" in row
            else f"{row['num_observations']:,} observations"
        )
        unit = "s" if prefix == "subset/" else f"{row['unit']}/s"
        theirs = _short(row["theirs"]) if "theirs" in row else ""
        ratio = f"{row['ratio']:.3g}" if "ratio" in row else ""
        rows.append(
            [row["name"], size, f"{_short(row['ours'])} {unit}", theirs, ratio, f"{row['seconds_to_first_result']:.0f}"]
        )
    return table_text.markdown(["", "", "jnf_jax", "MultiVae", "ratio", "s to the first result"], rows)


def rounding() -> str:
    """What the precision of an accelerator's float32 matrix products does to trained flows."""
    rows = [
        [
            row["precision"],
            f"{row['density_error_rms']:.1g}, {row['density_error_largest']:.1g}",
            f"{row['inverse_error_largest']:.1g}",
            f"{row['standardised_mean_square']:.4f} ± {row['standard_error']:.4f}",
            f"{row['chains_seconds']:.2f}",
        ]
        for row in table_text.read(BENCHMARKS / "accelerator.json")["rounding"]
    ]
    return table_text.markdown(
        [
            "precision",
            "error of log densities, nats: rms, largest",
            "largest error of inverses",
            "mean square of draws",
            "chains, s",
        ],
        rows,
    )


def streaming() -> str:
    """What streaming costs: memory beside that of a hundredth of the data, throughput beside data on the device."""
    found = table_text.read(BENCHMARKS / "streaming.json")
    return table_text.markdown(
        ["", ""],
        [
            ["data, GB", f"{found['gigabytes']:.2f}"],
            ["resident memory, GB", f"{found['resident_gigabytes']:.2f}"],
            ["resident memory with a hundredth of the data, GB", f"{found['resident_gigabytes_small']:.2f}"],
            ["examples a second, over those of data on the device", f"{found['share_of_on_device']:.3f}"],
        ],
    )


def scaling() -> str:
    """Weak scaling: examples a second where every device has the same work."""
    rows = [
        [
            f"{row['processes']}{'' if row['together'] else ' apart'}",
            row["devices"],
            row["processes"] * row["cores"],
            f"{row['examples_per_second']:.0f}",
            f"{row['efficiency']:.2f}",
        ]
        for row in table_text.read(BENCHMARKS / "scaling.json")["rows"]
    ]
    return table_text.markdown(
        ["processes", "devices each", "cores", "examples/s", "efficiency"], [list(map(str, row)) for row in rows]
    )


def samplers() -> str:
    """Samplers on the trained bent Gaussians, 500 draws a chain."""
    (found,) = table_text.read(BENCHMARKS / "samplers.json").values()
    best = sorted(found.items(), key=lambda item: -item[1]["effective draws/s"])
    rhat = "largest R-hat of a coordinate"
    rows = [[name, f"{row['effective draws/s']:,.0f}", f"{row['first call']:.0f}", f"{row[rhat]:.3f}"] for name, row in best]
    return table_text.markdown(["sampler", "effective draws/s", "first call, s", rhat], rows)


def readme() -> str:
    """The README's rows."""
    chosen = {row["name"]: row for row in table_text.read(BENCHMARKS / "results.json")["rows"]}
    return _speed(chosen[name] for name in README_ROWS)


def _speed(rows: Iterable[dict]) -> str:
    def cells(row):
        theirs, ratio = row.get("theirs"), row.get("ratio")
        share = row.get("roofline_fraction")
        return [
            row["name"],
            f"{_short(row['ours'])} {row['unit']}",
            _short(theirs) if theirs else "",
            f"{ratio:.2f}" if ratio and ratio < 9.95 else f"{ratio:.0f}" if ratio else "",
            f"{share:.2f}" if share else "",
        ]

    return table_text.markdown(["", "jnf_jax", "MultiVae", "ratio", "of a matrix product"], map(cells, rows))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 200 else f"{value:.3g}"
