"""What is damaged on disk is noticed, passed over or refused, and nothing of it is run."""

import collections
import dataclasses
import json
import os
import pathlib
import pickle
import random
import shutil

import jax
import numpy as np
import pytest
import test_checkpoint
import test_stages

from jnf_jax import ModalitySpec, configs
from jnf_jax.models import mvae
from jnf_jax.networks import mlp
from jnf_jax.training import checkpoint, files, stages, weights

DEFAULT = checkpoint.Policy()
STEPS = (10, 20, 30)
LIKE = test_checkpoint.state(0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Three states, and three of another training."""
    folder = tmp_path_factory.mktemp("saved")
    for name, scale in (("ours", 1), ("theirs", 7)):
        directory = checkpoint.Directory(folder / name, policy=checkpoint.Policy(keep=3), about={"run": name})
        for step in STEPS:
            directory.save(test_checkpoint.state(scale * step), step=step)
        directory.wait()
    return folder


class Payload:
    """A pickle that leaves a mark where it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


def files_of(folder):
    """Those of the newest state."""
    return [folder / "30.json", *(p for p in (folder / "30").rglob("*") if p.is_file())]


def flip(rng, folder, saved):
    path = rng.choice([p for p in files_of(folder) if p.stat().st_size])
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(rng, folder, saved):
    path = rng.choice([p for p in files_of(folder) if p.stat().st_size])
    os.truncate(path, rng.randrange(path.stat().st_size))


def lose(rng, folder, saved):
    rng.choice(files_of(folder)).unlink()


def lose_folder(rng, folder, saved):
    shutil.rmtree(folder / "30")


def add(rng, folder, saved):
    root = rng.choice([folder, *(p for p in folder.rglob("*") if p.is_dir())])
    (root / rng.choice(["extra", "40.json", "manifest.ocdbt.bak", "9" * 200 + ".json", "²"])).write_bytes(rng.randbytes(50))


def swap_in(rng, folder, saved):
    """A whole state of another training, or of another step."""
    step, other = "30", str(rng.choice(STEPS))
    source = saved / rng.choice(["ours", "theirs"])
    shutil.rmtree(folder / step)
    shutil.copytree(source / other, folder / step)
    if rng.random() < 0.7:
        shutil.copyfile(source / f"{other}.json", folder / f"{step}.json")


def other_leaves(rng, folder, saved):
    """Well written, with another shape or type."""
    state = test_checkpoint.state(5)
    changed = rng.choice(
        [
            state._replace(weights={**state.weights, "a": np.ones((2, 3), np.float32)}),
            state._replace(weights={**state.weights, "a": np.ones((3, 2), np.float16)}),
            state._replace(weights={**state.weights, "c": np.ones(3)}),
            state._replace(step=np.zeros((), np.int64)),
        ]
    )
    directory = checkpoint.Directory(folder, policy=checkpoint.Policy(keep=9), about={"run": "ours"})
    directory.save(changed, step=rng.choice([30, 40]))
    directory.wait()


def pickled(rng, folder, saved):
    rng.choice(files_of(folder)).write_bytes(pickle.dumps(Payload(folder.parent / "mark")))


def traversal(rng, folder, saved):
    """A manifest with a right sum that names a file outside."""
    path = folder / "30.json"
    content = json.loads(path.read_text())["content"]
    outside = rng.choice(["../../../../etc/hostname", "/etc/hostname", "../10.json", "..", "."])
    content["files"][outside] = "0" * 64
    path.write_text(json.dumps({"sha256": files.json_sum(content), "content": content}))


def link(rng, folder, saved):
    """A link in a file's or folder's place: to what was there, to a stranger, or to nothing."""
    path = rng.choice([folder / "30", folder / "30.json", *(folder / "30").rglob("*")])
    aside = folder.parent / f"aside{rng.random()}"
    path.rename(aside)
    path.symlink_to(rng.choice([aside, saved / "theirs" / path.name, "/nowhere", folder]))


def odd(rng, folder, saved):
    path = folder / "30.json"
    path.unlink()
    kind = rng.randrange(4)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    else:
        path.write_text(["[" * 100_000, '{"leaves": {"a": 1}, "files": 3}'][kind - 2])


KINDS = (flip, truncate, lose, lose_folder, add, swap_in, other_leaves, pickled, traversal, link, odd)
FATAL = (flip, truncate, lose, lose_folder, pickled, traversal, odd)  # to the newest state, which they hit


def outcome(folder):
    """Returns what happened, having checked that no state came back that was not saved for its step."""
    directory = checkpoint.Directory(folder, about={"run": "ours"})
    try:
        found = directory.latest(LIKE)
    except ValueError as error:
        assert str(error).startswith("Expected"), error
        return "refused"
    assert found is not None
    step = int(found.step)
    jax.tree.map(np.testing.assert_array_equal, found, test_checkpoint.state(step))
    if step == STEPS[-1]:
        return "harmless"
    gone = not (folder / f"{STEPS[-1]}.json").exists()
    assert directory.damaged or gone, "an older state came back, and nothing was said"
    return "passed over"


def damage_and_restore(saved, folder, number, seed):
    rng = random.Random(seed)
    copy = folder / str(number) / "ours"
    shutil.copytree(saved / "ours", copy)
    KINDS[number % len(KINDS)](rng, copy, saved)
    result = outcome(copy)
    assert not (copy.parent / "mark").exists(), "a pickle was run"
    return result


@pytest.mark.parametrize("number", range(len(KINDS)), ids=[kind.__name__ for kind in KINDS])
def test_a_damaged_checkpoint_is_never_restored_silently(saved, tmp_path, number):
    result = damage_and_restore(saved, tmp_path, number, number)
    assert result in ({"passed over", "refused"} if KINDS[number] in FATAL else {"passed over", "refused", "harmless"})


@pytest.mark.slow
def test_200_damaged_checkpoints_are_noticed_or_harmless(saved, tmp_path):
    counts = collections.Counter(
        (KINDS[number % len(KINDS)].__name__, damage_and_restore(saved, tmp_path, number, 1_000 + number))
        for number in range(200)
    )
    print(dict(counts))
    total = collections.Counter()
    for (_, result), num in counts.items():
        total[result] += num
    print(dict(total))
    assert sum(total.values()) == 200
    for kind in FATAL:
        assert counts[kind.__name__, "harmless"] == 0


def test_strict_refuses_where_an_older_state_is_whole(saved, tmp_path):
    folder = tmp_path / "ours"
    shutil.copytree(saved / "ours", folder)
    (folder / "30.json").write_bytes(b"\xff\xfe")
    assert int(checkpoint.Directory(folder).latest(LIKE).step) == 20
    with pytest.raises(files.DamagedError, match=r"--restore strict asks for, got a damaged one: .*30\.json holds no JSON"):
        checkpoint.Directory(folder, policy=checkpoint.Policy(strict=True)).latest(LIKE)


def test_a_state_of_another_training_is_refused_with_what_differs(saved):
    with pytest.raises(ValueError, match='to be of this training, got run: "theirs" -> "ours"'):
        checkpoint.Directory(saved / "theirs", about={"run": "ours"}).latest(LIKE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(folder)[0]


def train(folder, policy=DEFAULT, settings=test_stages.SETTINGS, seed=0):
    said = []
    data = test_stages.splits(test_stages.SPECS, train=50, validation=20)
    params, complete = stages.train(
        test_stages.regression(), jax.random.key(seed), data, settings={"slope": settings}, folder=folder, policy=policy,
        on_resume=lambda *arguments: said.append(arguments),
    )  # fmt: skip
    assert complete
    return params, said


@pytest.mark.parametrize("states_too", [False, True])
def test_a_damaged_finished_stage_comes_back_from_its_checkpoints_or_is_trained_again(trained, tmp_path, states_too):
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    for where in ("params", "checkpoints") if states_too else ("params",):
        for path in (folder / where / "slope").glob("*.json"):
            path.write_text("{")
    with pytest.raises(files.DamagedError, match="--restore strict"):
        train(folder, checkpoint.Policy(strict=True))
    params, ((stage, step, lines),) = train(folder)
    assert (stage, step) == ("slope", 0 if states_too else 40)
    assert any("params/slope/40.json holds no JSON" in line for line in lines)
    assert (folder / "params" / "slope.damaged").is_dir()
    np.testing.assert_array_equal(params["slope"], trained[1]["slope"])
    assert train(folder)[1] == []  # and is finished again


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"key: \[0, 0\] -> \[0, 1\]"),
        ({"settings": dataclasses.replace(test_stages.SETTINGS, num_steps=80)}, "settings.num_steps: 40 -> 80"),
    ],
)
def test_a_folder_of_another_training_is_refused_key_by_key(trained, change, message):
    with pytest.raises(ValueError, match=message):
        train(trained[0], **change)


EXPORTED = mvae.Config(latent_dim=2, network=mlp.Config(hidden=(4,)))
MODALITIES = {"a": ModalitySpec(shape=(3,)), "b": ModalitySpec(shape=(2,), scale=0.5)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An export, and one of other weights."""
    folder = tmp_path_factory.mktemp("exported")
    for seed, name in enumerate(("ours", "theirs")):
        params = configs.build(EXPORTED, MODALITIES).init(jax.random.key(seed))
        weights.save(folder / name, params, config=EXPORTED, specs=MODALITIES)
    return folder


def damage_export(rng, folder, exported):
    """Returns what was done to one of the two files."""
    path = folder / rng.choice([weights.MODEL, weights.WEIGHTS])
    content = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "truncate", "lose", "swap", "pickle", "link", "fifo", "digit", "add"])
    match kind:
        case "flip":
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            path.write_bytes(content)
        case "digit":  # still JSON: another number in the config, the modalities or a sum
            text = (folder / weights.MODEL).read_text()
            place = rng.choice([i for i, c in enumerate(text) if c.isdigit()])
            (folder / weights.MODEL).write_text(f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}")
        case "truncate":
            os.truncate(path, rng.randrange(len(content)))
        case "swap":
            shutil.copyfile(exported / "theirs" / path.name, path)
        case "pickle":
            path.write_bytes(pickle.dumps(Payload(folder.parent / "mark")))
        case "add":
            (folder / rng.choice(["extra", "params", "model.pkl"])).write_bytes(rng.randbytes(50))
        case _:
            path.unlink()
            if kind == "link":
                path.symlink_to(rng.choice([exported / "theirs" / path.name, pathlib.Path("/nowhere"), folder]))
            if kind == "fifo":
                os.mkfifo(path)
    return kind


def damage_and_load(exported, folder, number):
    rng = random.Random(number)
    copy = folder / str(number) / "ours"
    shutil.copytree(exported / "ours", copy)
    kind = damage_export(rng, copy, exported)
    try:
        model, params = weights.load(copy)
    except ValueError as error:
        assert str(error).startswith("Expected"), error
        result = "refused"
    else:
        assert model.specs == MODALITIES
        expected = configs.build(EXPORTED, MODALITIES).init(jax.random.key(0))
        jax.tree.map(np.testing.assert_array_equal, params, expected)
        result = "harmless"
    assert not (copy.parent / "mark").exists(), "a pickle was run"
    return kind, result


@pytest.mark.parametrize("numbers", [range(25), pytest.param(range(25, 200), marks=pytest.mark.slow)], ids=["25", "200"])
def test_damaged_exports_are_refused_or_harmless(exported, tmp_path, numbers):
    found = collections.Counter(damage_and_load(exported, tmp_path, number) for number in numbers)
    print(dict(found))
    assert {kind for kind, result in found if result == "harmless"} <= {"add"}
