"""What saving costs on polydigits, at the default interval of one save every 200 steps: `python saving.py FOLDER`.

Prints two shares: of the wall clock, what training waits; of the processor's time, what a save takes with all its threads, measured alone.
"""

import dataclasses
import json
import sys
import time

import jax

from experiments import experiment
from jnf_jax import keys
from jnf_jax.training import checkpoint, fit, writers


class Timed(checkpoint.Directory):
    """Adds up what `save` keeps its caller waiting."""

    blocked, saves = 0.0, 0

    def save(self, *arguments, **options):
        begun = time.perf_counter()
        super().save(*arguments, **options)
        self.blocked += time.perf_counter() - begun
        self.saves += 1


def main(folder):
    config = experiment.find("polydigits/jnf")
    model, data = experiment.build(config)
    params = jax.jit(model.init)(keys.stream(jax.random.key(0), "init"))
    stage = model.stages[0]
    train, validation = (fit.prepare(stage, params, data[s].batch(), batch_size=500) for s in ("train", "validation"))
    settings = dataclasses.replace(config.training[stage.name], num_steps=400)
    directory, marks = Timed(folder), []
    fit.fit(
        stage, params, jax.random.key(1), train, validation, config=settings, checkpoints=directory, pace=writers.Pace(),
        on_report=lambda report: marks.append((report.step, time.perf_counter(), time.process_time())),
    )  # fmt: skip
    directory.wait()
    (first, begun, spent), (last, ended, spent_at_end) = marks[0], marks[-1]
    blocked = directory.blocked / directory.saves
    state = fit.initial_train_state(stage, params, fit.make_optimizer(settings))
    state = fit.FitState(state, state.trainable, jax.numpy.zeros(()), jax.numpy.zeros((), int))
    before = time.process_time()
    directory.save(state, step=1_000)
    directory.wait()
    alone = time.process_time() - before
    steps = last - first
    shares = {
        "waited": blocked / ((ended - begun) * 200 / steps),
        "worked": alone / ((spent_at_end - spent) * 200 / steps),
    }
    print(json.dumps(shares))


if __name__ == "__main__":
    main(sys.argv[1])
