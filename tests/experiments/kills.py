"""Trains in forked processes that are killed at random times: `python kills.py FOLDER KILLS SEED TRAIN-ARGUMENTS..`.

Everything is imported once and JAX is not begun, so that a fork costs no start. Prints one line of JSON.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time


def main(folder: pathlib.Path, kills: int, seed: int, arguments: list[str]) -> None:
    from experiments import experiment, train

    experiment.use_compilation_cache()
    rng = random.Random(seed)

    def begin(workdir):
        if (child := os.fork()) == 0:
            code = 1
            try:
                sys.argv = ["train", *arguments, "--workdir", str(workdir)]
                log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1), os.dup2(log, 2)
                code = train.main()
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
        else:
            assert ended[1] == 0, (folder / "log").read_text()[-3000:]
            runs.append(folder / f"run{len(runs)}")
    finish(runs[-1])
    shutil.rmtree(folder / "warm")
    print(json.dumps({"runs": len(runs), "kills": done, "alone_seconds": round(whole, 1), "at": at}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
