"""The Hub is a folder here: what is called on the library is checked against the library's own signatures."""

import fnmatch
import inspect
import pathlib
import shutil
import sys

import huggingface_hub
import jax
import pytest

from jnf_jax import ModalitySpec, configs
from jnf_jax.models import mvae
from jnf_jax.networks import mlp
from jnf_jax.training import hub, weights

CONFIG = mvae.Config(latent_dim=2, network=mlp.Config(hidden=(4,)))
SPECS = {"a": ModalitySpec(shape=(2,)), "b": ModalitySpec(shape=(3,))}


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """The Hub's repositories, each a folder."""
    root = tmp_path / "remote"
    real = huggingface_hub.HfApi, huggingface_hub.snapshot_download

    def copy(source, target, patterns):
        target.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns):
                shutil.copy(path, target)

    class Api:
        def create_repo(self, *args, **options):
            inspect.signature(real[0].create_repo).bind(self, *args, **options)
            (root / args[0]).mkdir(parents=True, exist_ok=options["exist_ok"])

        def upload_folder(self, **options):
            inspect.signature(real[0].upload_folder).bind(self, **options)
            for pattern in options["delete_patterns"]:
                for path in (root / options["repo_id"]).glob(pattern):
                    path.unlink()
            copy(pathlib.Path(options["folder_path"]), root / options["repo_id"], options["allow_patterns"])
            return f"https://huggingface.co/{options['repo_id']}/commit/1"

    def download(*args, **options):
        inspect.signature(real[1]).bind(*args, **options)
        target = pathlib.Path(options.get("local_dir") or tmp_path / "cache")
        copy(root / args[0], target, options["allow_patterns"])
        return str(target)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return root


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "mine"
    params = jax.jit(configs.build(CONFIG, SPECS).init)(jax.random.key(0))
    weights.save(folder, params, config=CONFIG, specs=SPECS)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "mine")


def test_there_and_back(remote, folder, tmp_path):
    (folder / "README.md").write_text("# A model")
    (folder / ".lock").write_text("")
    (folder / "notes.txt").write_text("mine alone")
    assert hub.push_to_hub(folder, "me/model", private=True).startswith("https://huggingface.co/me/model")
    assert {p.name for p in (remote / "me/model").iterdir()} == {"README.md", weights.MODEL, weights.WEIGHTS}
    _, expected = weights.load(folder)
    for target in (None, tmp_path / "here"):
        _, params = weights.load(hub.from_hub("me/model", folder=target))
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, expected))
    assert (tmp_path / "here" / "README.md").exists()


def test_an_evaluation_of_older_weights_goes(remote, folder):
    (folder / "evaluation.json").write_text("{}")
    hub.push_to_hub(folder, "me/model")
    (remote / "me/model" / "theirs.txt").write_text("")
    assert (remote / "me/model" / "evaluation.json").exists()
    (folder / "evaluation.json").unlink()
    hub.push_to_hub(folder, "me/model")
    assert {p.name for p in (remote / "me/model").iterdir()} == {weights.MODEL, weights.WEIGHTS, "theirs.txt"}


def test_a_page_that_somebody_wrote_stays(remote, folder):
    (remote / "me/model").mkdir(parents=True)
    (remote / "me/model" / "README.md").write_text("my licence")
    hub.push_to_hub(folder, "me/model")
    assert (remote / "me/model" / "README.md").read_text() == "my licence"


def test_two_models_are_never_mixed(remote, folder, tmp_path, monkeypatch):
    hub.push_to_hub(folder, "me/model")
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    assert hub.from_hub("me/model", folder=tmp_path / "link") == tmp_path / "here"
    shutil.rmtree(tmp_path / "here")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert hub.from_hub("me/model", folder=".") == tmp_path / "here"
    shutil.rmtree(tmp_path / "here")
    found = hub.from_hub("me/model", folder=tmp_path / "here")
    assert {p.name for p in found.iterdir()} == {weights.MODEL, weights.WEIGHTS}
    with pytest.raises(ValueError, match=r"a new or an empty folder to download to, got .*here, which holds something"):
        hub.from_hub("me/other", folder=tmp_path / "here")
    # without a connection the library returns a folder that it was given as it is
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **options: options["local_dir"])
    with pytest.raises(ValueError, match=r"Expected .*me/other"):
        hub.from_hub("me/other", folder=tmp_path / "there")
    assert {p.name for p in tmp_path.iterdir()} >= {"here"}
    assert not [p.name for p in tmp_path.iterdir() if "there" in p.name]


def test_nothing_but_the_known_files_comes_down(remote, folder, tmp_path):
    hub.push_to_hub(folder, "me/model")
    (remote / "me/model" / "payload.pkl").write_bytes(b"\x80\x04.")
    (remote / "me/model" / "setup.py").write_text("raise SystemExit")
    found = hub.from_hub("me/model", folder=tmp_path / "here")
    assert {p.name for p in found.iterdir()} == {weights.MODEL, weights.WEIGHTS}


def test_damaged_weights_neither_go_up_nor_come_down(remote, folder, tmp_path):
    hub.push_to_hub(folder, "me/model")
    for path in (folder, remote / "me/model"):
        (path / weights.WEIGHTS).write_bytes(b"?")
    with pytest.raises(ValueError, match="the file is damaged"):
        hub.push_to_hub(folder, "me/other")
    assert not (remote / "me/other").exists()
    with pytest.raises(ValueError, match="the file is damaged"):
        hub.from_hub("me/model", folder=tmp_path / "here")


def test_a_hub_that_is_not_reached_is_one_clear_line(monkeypatch):
    from huggingface_hub import errors

    transport = errors.HfHubHTTPError.__bases__[0]  # what the library reaches the Hub by names its errors so

    def fail(*args, **options):
        raise transport("no route\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ValueError, match=r"Expected a repository .* that can be reached .*, got 'me/model': no route$"):
        hub.from_hub("me/model")


def test_a_missing_library_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r'pip install "jnf_jax\[hub\]"'):
        hub.push_to_hub(folder, "me/model")
