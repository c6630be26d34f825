"""What saving costs on polydigits, at the default interval: one save every 200 steps."""

import dataclasses
import time

import jax
import pytest

from experiments import experiment
from jnf_jax import keys
from jnf_jax.training import checkpoint, fit, writers


class Timed(checkpoint.Directory):
    blocked, saves = 0.0, 0

    def save(self, *arguments, **options):
        begun = time.perf_counter()
        super().save(*arguments, **options)
        self.blocked += time.perf_counter() - begun
        self.saves += 1


@pytest.mark.slow
def test_saving_takes_less_than_2_percent_of_training(tmp_path):
    """Of the wall clock, what training waits; of the processor's time, what a save takes with all its threads, measured alone."""
    with jax.enable_x64(False):
        config = experiment.find("polydigits/jnf")
        model, data = experiment.build(config)
        params = jax.jit(model.init)(keys.stream(jax.random.key(0), "init"))
        stage = model.stages[0]
        train, validation = (fit.prepare(stage, params, data[s].batch(), batch_size=500) for s in ("train", "validation"))
        settings = dataclasses.replace(config.training[stage.name], num_steps=400)
        directory, marks = Timed(tmp_path), []
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
    waited = blocked / ((ended - begun) * 200 / steps)
    worked = alone / ((spent_at_end - spent) * 200 / steps)
    print(f"training waits {waited:.3%} of the time, saving takes {worked:.3%} of the processor's")
    assert waited < 0.02
    assert worked < 0.02
