"""Shows what a run or an experiment is made of: parameters, work and memory of a step, devices, checkpoints, time.

    jnf-jax inspect runs/a
    jnf-jax inspect polydigits/jnf [--quick]

Work and memory are those of XLA's compiled step; `--no-costs` leaves them out, for compiling takes a while. Every file of a checkpoint is read.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import rich.box
import rich.console
import rich.table
import tyro

from experiments import experiment, run_folder
from jnf_jax import types
from jnf_jax.models import base
from jnf_jax.training import checkpoint, fit, sharding, step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Shows what a run or an experiment is made of.

    Attributes:
      target: folder of a run, or the name of an experiment.
      quick: the experiment's size for two CPU cores.
      costs: whether every stage's step is compiled for its work and memory.
    """

    target: Annotated[str, tyro.conf.Positional]
    quick: bool = False
    costs: bool = True


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = tyro.cli(Arguments, prog="jnf-jax inspect")
    workdir = pathlib.Path(arguments.target)
    is_run = workdir.is_dir() and (workdir / "config.json").exists()
    config = run_folder.load(workdir) if is_run else experiment.find(arguments.target, quick=arguments.quick)
    model, data = experiment.build(config)
    params = jax.eval_shape(model.init, jax.random.key(0))
    console = rich.console.Console()
    console.print(_table("Parameters", parameters(params)))
    console.print(_table("Devices", devices(config)))
    if arguments.costs:
        console.print(_table("A step, compiled", [costs(model, params, data, config, s) for s in model.stages if s.loss]))
    if is_run:
        console.print(_table("Checkpoints", checkpoints(model, workdir)))
        console.print(_table("Time", times(run_folder.metrics(workdir))))
    return 0


def parameters(params: types.Params) -> list[dict[str, Any]]:
    """Returns the number of parameters and their bytes, a row for each module, and one for all."""
    rows = []
    for name, entry in params.items():
        parts = entry.items() if isinstance(entry, Mapping) else [("", entry)]
        rows += [{"module": f"{name}.{part}".rstrip("."), **_size(tree)} for part, tree in parts]
    return [*rows, {"module": "all", **_size(params)}]


def devices(config: experiment.Config) -> list[dict[str, Any]]:
    """Returns how each stage's batches lie on the mesh of all devices."""
    mesh = sharding.make_mesh()
    axes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
    return [
        {
            "stage": stage,
            "mesh": axes,
            "devices": f"{mesh.size} {mesh.devices.flat[0].device_kind}",
            "batch": settings.batch_size,
            "of a device": f"{settings.batch_size / mesh.size:g}",
            "batch is split on": str(sharding.over_batch(mesh).spec),
        }
        for stage, settings in config.training.items()
    ]


def costs(model: base.Model, params: types.Params, data, config: experiment.Config, stage: base.Stage) -> dict[str, Any]:
    """Returns the FLOPs and the memory of one compiled step of a stage, on one device."""
    settings = config.training[stage.name]
    shape = lambda x: jax.ShapeDtypeStruct((settings.batch_size, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype))
    batch = jax.tree.map(shape, data["train"].batch())
    for earlier in model.stages:
        if earlier.begin is not None:
            params = jax.eval_shape(earlier.begin, params)
        if earlier is stage:
            break
    if stage.prepare is not None:
        batch = jax.eval_shape(stage.prepare, params, batch)
    optimizer = fit.make_optimizer(settings)
    state = jax.eval_shape(lambda p: fit.initial_train_state(stage, p, optimizer), params)
    frozen = {name: value for name, value in params.items() if name not in stage.trainable}
    total = settings.num_calls * settings.steps_per_call
    compiled = step.make_step(stage, optimizer, total_steps=total).lower(state, frozen, jax.random.key(0), batch).compile()
    work, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    return {
        "stage": stage.name,
        "trained": _number(_size({name: params[name] for name in stage.trainable})["parameters"]),
        "steps": total,
        "FLOPs": _number(work.get("flops")),
        "bytes moved": _number(work.get("bytes accessed")),
        "state and batch": _bytes(memory.argument_size_in_bytes if memory else None),
        "temporary": _bytes(memory.temp_size_in_bytes if memory else None),
    }


def checkpoints(model: base.Model, workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns every checkpoint of a run, and whether it is whole."""
    rows = []
    for stage in model.stages:
        for kind in ("params", "checkpoints"):
            for health in checkpoint.Directory(workdir / kind / stage.name).health():
                loss = "" if health.loss is None else f"{health.loss:.5g}"
                rows.append(
                    {
                        "stage": stage.name,
                        "kind": "finished" if kind == "params" else "state",
                        "step": health.step,
                        "validation loss": loss,
                        "size": _bytes(health.num_bytes),
                        "health": health.trouble or "whole",
                    }
                )
    return rows


def times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the time that each stage took, compilation and every process that worked on it included."""
    spent: dict[str, list[float]] = {}
    for row in rows:
        if isinstance(seconds := row.get("seconds"), int | float):
            spent.setdefault(row["stage"], []).append(seconds)
    return [{"stage": stage, "calls": len(found), "seconds": f"{sum(found):.1f}"} for stage, found in spent.items()]


def _size(tree: Any) -> dict[str, int]:
    leaves = jax.tree.leaves(tree)
    return {
        "parameters": sum(math.prod(leaf.shape) for leaf in leaves),
        "bytes": sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves),
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value >= 1e6 else f"{value:,.0f}"


def _bytes(value: float | None) -> str:
    return "-" if value is None else f"{value / 2**20:,.2f} MiB"


def _table(title: str, rows: list[dict[str, Any]]) -> rich.table.Table | str:
    if not rows:
        return f"{title}: none"
    table = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE)
    for name, value in rows[0].items():
        table.add_column(name, justify="right" if isinstance(value, int | float) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()))
    return table


if __name__ == "__main__":
    experiment.main(main)
