import dataclasses
import re

import compilations
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax.models import base
from jnf_jax.training import fit, held_out, sharding, step

CONFIG = fit.Config(
    num_steps=40, batch_size=8, learning_rate=0.05, steps_per_call=10, calls_per_validation=1, schedule="constant"
)


def regression(loss=lambda params, batch: ((params["slope"] * batch["x"] - batch["y"]) ** 2).mean()):
    return base.Stage(
        name="regression",
        trainable=("slope",),
        loss=lambda params, key, batch: (loss(params, batch), {"slope": params["slope"]}),
    )


def data(num=50, slope=2.0):
    x = np.random.default_rng(0).normal(size=num)
    return {"x": x, "y": slope * x}


PARAMS = {"slope": jnp.zeros(()), "frozen": jnp.ones(3)}


def train(stage=None, config=CONFIG, **options):
    return fit.fit(stage or regression(), PARAMS, jax.random.key(0), data(), data(20), config=config, **options)


def test_it_learns_and_leaves_the_rest_alone():
    params, complete = train(config=dataclasses.replace(CONFIG, num_steps=200))
    assert complete
    np.testing.assert_allclose(params["slope"], 2, atol=0.05)
    np.testing.assert_array_equal(params["frozen"], PARAMS["frozen"])
    np.testing.assert_array_equal(PARAMS["slope"], 0)  # the caller's arrays are not donated


@pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau"])
def test_every_schedule_trains(schedule):
    params, _ = train(config=dataclasses.replace(CONFIG, num_steps=200, schedule=schedule))
    np.testing.assert_allclose(params["slope"], 2, atol=0.2)


@pytest.mark.parametrize("level", [-1_000.0, 0.0, 1_000.0])
def test_the_plateau_schedule_lowers_the_rate_after_so_many_validations_without_a_better_loss(level):
    stage = regression(loss=lambda params, batch: level + params["slope"] + 0 * batch["x"].mean())
    states = Recorder()
    falling = dataclasses.replace(CONFIG, num_steps=100, schedule="plateau", plateau_patience=2)
    train(stage, falling, checkpoints=states)
    assert float(states.states[-1].train.rate_scale) == 1
    constant = regression(loss=lambda params, batch: level + 0 * params["slope"] + 0 * batch["x"].mean())
    states = Recorder()
    train(constant, falling, checkpoints=states)
    scales = [float(state.train.rate_scale) for state in states.states]
    np.testing.assert_allclose(scales, [0.1 ** (number // 2) for number in range(len(scales))], rtol=1e-6)
    assert scales[-1] < 0.05


class Recorder:
    def __init__(self, start=None):
        self.states, self.steps, self.losses, self.start = [], [], [], start

    def latest(self, like):
        return self.start

    def save(self, state, *, step, loss):
        self.losses.append(loss)
        self.states.append(jax.device_get(state))
        self.steps.append(step)


def test_the_best_weights_come_back_not_the_last():
    away = regression(loss=lambda params, batch: jnp.where(params["slope"] < 1, -params["slope"], 10 * params["slope"]))
    reports = []
    params, _ = train(away, dataclasses.replace(CONFIG, learning_rate=0.3, num_steps=60), on_report=reports.append)
    losses = [r.validation_loss for r in reports]
    value = float(params["slope"])
    assert min(losses) == pytest.approx(-value if value < 1 else 10 * value)
    assert losses[-1] > min(losses)


def test_a_run_continued_from_any_checkpoint_is_bit_for_bit_the_same():
    whole = Recorder()
    expected, _ = train(checkpoints=whole)
    assert whole.steps == [10, 20, 30, 40]
    for state in whole.states[:-1]:
        again, _ = train(checkpoints=Recorder(start=state))
        np.testing.assert_array_equal(again["slope"], expected["slope"])


def test_stopping_saves_the_state_and_says_so():
    states = Recorder()
    config = dataclasses.replace(CONFIG, calls_per_validation=4)
    _, complete = train(config=config, checkpoints=states, should_stop=lambda: True)
    assert not complete
    assert states.steps == [10]
    again, complete = train(config=config, checkpoints=Recorder(start=states.states[0]))
    assert complete
    np.testing.assert_array_equal(again["slope"], train(config=config)[0]["slope"])


def test_a_loss_that_is_not_finite_stops_with_the_last_good_weights():
    stage = regression(
        loss=lambda params, batch: jnp.where(params["slope"] > 0.6, jnp.nan, -params["slope"] + 0 * batch["x"].mean())
    )
    with pytest.raises(fit.NonFiniteError, match=r"at step \d+ of stage 'regression'") as caught:
        train(stage)
    assert 0.5 < float(caught.value.params["slope"]) < 0.75
    assert 10 < caught.value.failed_step < 20
    np.testing.assert_array_equal(caught.value.params["frozen"], PARAMS["frozen"])


def test_untrained_weights_are_not_the_best_of_a_stage_whose_validation_never_is_finite():
    held_out = {**data(20), "y": np.full(20, np.inf)}
    with pytest.raises(fit.NonFiniteError, match=r"finite validation loss, got none at step 10 of stage") as caught:
        fit.fit(regression(), PARAMS, jax.random.key(0), data(), held_out, config=CONFIG)
    assert float(caught.value.params["slope"]) > 0


def test_one_validation_that_is_not_finite_is_no_better_one():
    losses = iter([jnp.asarray(3.0), jnp.asarray(jnp.nan), jnp.asarray(jnp.inf)])
    state = fit._first_state(regression(), PARAMS, fit.make_optimizer(CONFIG), None)
    for loss in losses:
        state = fit._judge(state, loss, CONFIG, annealing=False)
    assert float(state.best_loss) == 3
    assert int(state.since_best) == 2


def test_early_stopping():
    reports = []
    stage = regression(loss=lambda params, batch: params["slope"] ** 2 + 0 * batch["x"].mean())
    _, complete = train(stage, dataclasses.replace(CONFIG, num_steps=1000, early_stopping=3), on_report=reports.append)
    assert complete
    assert len(reports) == 4  # the first is the best, and three validations follow


@pytest.mark.parametrize("options", [{"early_stopping": 3}, {"schedule": "plateau", "plateau_patience": 3}])
def test_no_validation_counts_while_another_loss_is_minimised(options):
    reports, states = [], Recorder()
    stage = regression(loss=lambda params, batch: params["slope"] ** 2 + 0 * batch["x"].mean())
    annealed = lambda params, key, batch, progress: stage.loss(params, key, batch)
    stage = dataclasses.replace(stage, annealed=annealed, annealing=0.5)
    config = dataclasses.replace(CONFIG, num_steps=200, **options)
    train(stage, config, on_report=reports.append, checkpoints=states)
    rates = [float(state.train.rate_scale) for state in states.states]
    if "early_stopping" in options:
        assert reports[-1].step == 120  # validations at 100, 110 and 120 count
    else:
        assert rates[:11] == [1.0] * 11
        assert rates[11] < 1  # at the third of them


def test_clipping_bounds_the_first_update():
    config = dataclasses.replace(CONFIG, num_steps=1, steps_per_call=1, clip_norm=1e-12)
    params, _ = train(config=config)
    assert abs(float(params["slope"])) < 1e-3 * CONFIG.learning_rate  # Adam alone bounds it by the learning rate


def test_one_compilation_a_stage_and_no_transfer_within_a_call():
    compiled = []
    original = step.make_train_call

    class Recording:
        def __init__(self, *args, **options):
            self.call = original(*args, **options)

        def lower(self, *args):
            compiled.append(args)
            return self

        def compile(self, **options):
            program = self.call.lower(*compiled[-1]).compile(**options)

            def guarded(*args):
                with jax.transfer_guard("disallow"):
                    return program(*args)

            return guarded

    step.make_train_call = Recording
    try:
        train()
    finally:
        step.make_train_call = original
    assert len(compiled) == 1


def test_a_step_moves_weights_and_moments_where_they_lie():
    """XLA would copy both moments before it writes them."""
    shape = (37, 53)  # nothing else has it
    stage = base.Stage(
        name="product",
        trainable=("weights",),
        loss=lambda params, key, batch: ((batch @ params["weights"] - 1).mean() ** 2, {}),
    )
    params, optimizer = {"weights": jnp.ones(shape)}, fit.make_optimizer(CONFIG)
    call = step.make_train_call(stage, optimizer, sharding.make_mesh(1), batch_size=8, num_steps=5)
    state = fit.initial_train_state(stage, params, optimizer)
    program = call.lower(state, {}, jax.random.key(0), jnp.ones((16, shape[0]))).compile().as_text()
    assert re.search(r"f64\[37,53\]", program)
    assert not re.findall(r"= f64\[37,53\]\S* copy\(.*", program)


def test_every_example_is_seen_once_an_epoch():
    seen = []
    stage = base.Stage(
        name="count",
        trainable=("slope",),
        loss=lambda params, key, batch: (params["slope"] * 0.0, {"sum": batch["x"].sum(), "squares": (batch["x"] ** 2).sum()}),
    )
    rows = {"x": np.arange(32.0)}
    config = dataclasses.replace(CONFIG, num_steps=8, steps_per_call=4)
    fit.fit(stage, PARAMS, jax.random.key(0), rows, rows, config=config, on_report=lambda r: seen.append(r.metrics))
    for metrics in seen:  # means over the four batches of one epoch
        assert 4 * metrics["sum"] == np.arange(32.0).sum()
        assert 4 * metrics["squares"] == (np.arange(32.0) ** 2).sum()


def test_validation_is_exact_whatever_the_batch():
    losses = set()
    for batch_size in (1, 8, 19):  # 8 leaves a smaller batch
        reports = []
        config = dataclasses.replace(CONFIG, num_steps=1, steps_per_call=1, batch_size=batch_size, learning_rate=1e-12)
        fit.fit(
            regression(), PARAMS, jax.random.key(0), data(), data(19),
            config=config, mesh=sharding.make_mesh(1), on_report=reports.append,
        )  # fmt: skip
        losses.add(round(reports[-1].validation_loss, 9))
    assert len(losses) == 1


@pytest.mark.parametrize(
    ("num_examples", "most", "expected"),
    [(1_000, 128, 100), (6_000, 256, 240), (997, 128, 128), (5, 8, 5), (256, 128, 128), (3, 1, 1)],
)
def test_the_batches_of_a_validation_have_one_size_where_they_can(num_examples, most, expected):
    assert held_out.even_batch(num_examples, most=most) == expected


def test_a_validation_draws_the_same_on_any_number_of_devices():
    """20 examples come in batches of 5, which do not split over four devices as batches of 8 would."""

    def loss(params, key, batch):
        noise = jax.random.normal(key, batch["x"].shape)
        return ((params["slope"] * batch["x"] - batch["y"] + noise) ** 2).mean(), {}

    stage = base.Stage(name="noisy", trainable=("slope",), loss=loss)
    losses = []
    for devices in (1, 4):
        reports = []
        train(stage, mesh=sharding.make_mesh(devices), on_report=reports.append)
        losses.append([report.validation_loss for report in reports])
    np.testing.assert_allclose(*losses, rtol=1e-10)


def test_a_mesh_of_several_devices_trains_the_same():
    one, _ = train(mesh=sharding.make_mesh(1))
    four, _ = train(mesh=sharding.make_mesh(4))
    np.testing.assert_allclose(one["slope"], four["slope"], rtol=1e-10)


def test_what_cannot_be_trained_is_refused_before_compiling():
    with pytest.raises(ValueError, match="divisible by the 4 devices of the mesh, 4 or 8 for instance, got 6"):
        train(config=dataclasses.replace(CONFIG, batch_size=6), mesh=sharding.make_mesh(4))
    with pytest.raises(ValueError, match="at least one batch of 64 examples, got 50"):
        train(config=dataclasses.replace(CONFIG, batch_size=64))
    with pytest.raises(ValueError, match=r"params with the entries \['slope'\]"):
        fit.fit(regression(), {"other": jnp.ones(())}, jax.random.key(0), data(), data(), config=CONFIG)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "positive learning rate"),
        ({"early_stopping": 0}, "at least 1 validation, or None, got 0"),
        ({"clip_norm": -1.0}, "positive clip_norm, or None, got -1.0"),
        ({"warmup_steps": -1}, "warmup_steps of at least 0"),
        ({"weight_decay": -0.1}, "weight_decay of at least 0"),
        ({"schedule": "cosin"}, "fit.schedule, got 'cosin'"),
        ({"num_steps": 1e3}, "fit.num_steps, got 1000.0"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **options)


def test_an_annealed_loss_sees_the_share_of_the_stage_and_validation_does_not():
    plain = regression()
    seen, validated = [], []

    def annealed(params, key, batch, progress):
        loss, _ = plain.loss(params, key, batch)
        return 0 * loss + progress * params["slope"], {"progress": progress}

    def on_report(report):
        seen.append(report.metrics["progress"])
        validated.append(report.validation_loss)

    train(dataclasses.replace(plain, annealed=annealed), on_report=on_report)
    np.testing.assert_allclose(
        seen, [(10 * call + 4.5) / 40 for call in range(4)], rtol=1e-5
    )  # means over the ten steps of a call
    with pytest.raises(ValueError, match="total_steps for stage 'regression'"):
        step.make_train_call(dataclasses.replace(plain, annealed=annealed), None, None, batch_size=8, num_steps=10)
    assert min(validated) > 1  # squared errors of a slope that was never fitted


def test_weights_of_many_shapes_need_no_more_programs_than_two():
    """A program for each shape, to copy it for instance, is what a start would wait for."""

    def programs(num):
        loss = lambda params, key, batch: (sum((leaf**2).sum() for leaf in params["weights"]) + batch.sum(), {})
        stage = base.Stage("many", ("weights",), loss)
        before = compilations.count()
        fit.fit(stage, params[num], jax.random.key(0), np.ones(20), np.ones(20), config=CONFIG)
        return compilations.count() - before

    params = {num: {"weights": [jnp.ones(10 * num + i) for i in range(num)]} for num in (1, 2, 9)}
    programs(1)  # and with it what all calls need
    assert programs(9) == programs(2)


def test_the_cosine_schedule_rises_and_falls():
    """Adam's steps have the size of the rate where the gradient is constant."""
    states = Recorder()
    falling = regression(loss=lambda params, batch: params["slope"] + 0 * batch["x"].mean())
    config = dataclasses.replace(CONFIG, num_steps=100, steps_per_call=1, schedule="cosine", warmup_steps=10)
    train(falling, config, checkpoints=states)
    slopes = [0.0, *(float(state.train.trainable["slope"]) for state in states.states)]
    sizes = -np.diff(slopes) / CONFIG.learning_rate
    step = np.arange(100)
    expected = np.where(step < 10, step / 10, 0.5 * (1 + np.cos(np.pi * (step - 10) / 90)))
    np.testing.assert_allclose(sizes, expected, atol=1e-5)


def test_weights_decay_apart_from_their_gradients():
    flat = regression(loss=lambda params, batch: 0 * params["slope"] + 0 * batch["x"].mean())
    states = Recorder()
    config = dataclasses.replace(CONFIG, num_steps=10, steps_per_call=1, weight_decay=0.1)
    start = {**PARAMS, "slope": jnp.ones(())}
    fit.fit(flat, start, jax.random.key(0), data(), data(20), config=config, checkpoints=states)
    slopes = [float(state.train.trainable["slope"]) for state in states.states]
    np.testing.assert_allclose(slopes, (1 - 0.1 * CONFIG.learning_rate) ** np.arange(1, 11), rtol=1e-6)
