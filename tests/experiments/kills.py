"""Trains in forked processes that are killed at random times: `python kills.py FOLDER KILLS SEED [TRAIN-ARGUMENTS..]`.

Without arguments of `train` two small stages are trained. Everything is imported once and JAX is not begun, so that a fork costs no start.
Prints one line of JSON.
"""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time


def main(folder: pathlib.Path, kills: int, seed: int, arguments: list[str]) -> None:
    from experiments import train
    from jnf_jax import compiling

    compiling.use_compilation_cache()
    rng = random.Random(seed)

    def begin(workdir):
        if (child := os.fork()) == 0:
            code = 1
            try:
                log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1), os.dup2(log, 2)
                if arguments:
                    sys.argv = ["train", *arguments, "--workdir", str(workdir)]
                    code = train.main()
                else:
                    code = small(workdir)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        return child

    def finish(workdir):
        begun = time.monotonic()
        _, status = os.waitpid(begin(workdir), 0)
        assert status == 0, (folder / "log").read_text()[-3000:]
        return time.monotonic() - begun

    finish(folder / "warm")  # compiles, for all that follow
    whole = finish(folder / "alone")
    runs, done, at = [folder / "run0"], 0, []
    while done < kills:
        child = begin(runs[-1])
        wait = rng.uniform(0, 1.1 * whole)
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline and (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            time.sleep(0.002)
        if ended == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            done += 1
            at.append(round(wait, 2))
            print(done, file=sys.stderr, flush=True)
        else:
            assert ended[1] == 0, (folder / "log").read_text()[-3000:]
            runs.append(folder / f"run{len(runs)}")
    finish(runs[-1])
    shutil.rmtree(folder / "warm")
    print(json.dumps({"runs": len(runs), "kills": done, "alone_seconds": round(whole, 1), "at": at}))


def small(workdir):
    """Trains two stages, the second on the first's weights, with a save every 20 steps."""
    import jax
    import jax.numpy as jnp
    import test_stages

    from jnf_jax.models import base
    from jnf_jax.training import fit, stages, writers

    first = test_stages.regression()
    loss = lambda params, key, batch: (((params["offset"] - params["slope"] * batch["x"]) ** 2).mean(), {})
    second = base.Stage(name="offset", trainable=("offset",), loss=loss, needs=("slope",))
    model = dataclasses.replace(
        first, init=lambda key: {"slope": jnp.zeros(()), "offset": jnp.ones(200)[:1]}, stages=(*first.stages, second)
    )
    config = fit.Config(num_steps=400, batch_size=8, learning_rate=0.05, steps_per_call=10, calls_per_validation=2)
    data = test_stages.splits(test_stages.SPECS, train=50, validation=20)
    _, complete = stages.train(
        model,
        jax.random.key(0),
        data,
        settings=dict.fromkeys(("slope", "offset"), config),
        folder=workdir,
        pace=writers.Pace(0.01),
    )
    return 0 if complete else 1


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
