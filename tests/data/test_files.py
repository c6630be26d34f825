import functools
import hashlib
import http.server
import threading

import pytest
import requests

from jnf_jax.data import files


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"content")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}/a.bin"
    served.shutdown()


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("JNF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("JNF_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def test_a_local_file_comes_before_a_download(folders, server):
    file = files.RawFile(name="x/a.bin", url=server, sha256="0" * 64)
    (folders / "data" / "x").mkdir(parents=True)
    (folders / "data/x/a.bin").write_bytes(b"mine")
    assert files.is_at_hand(file)
    assert files.find(file).read_bytes() == b"mine"


def test_a_download_is_checked_and_kept(folders, server, monkeypatch):
    file = files.RawFile(name="x/a.bin", url=server, sha256=hashlib.sha256(b"content").hexdigest())
    assert not files.is_at_hand(file)
    assert files.find(file).read_bytes() == b"content"
    monkeypatch.setattr(files, "_download", lambda file: pytest.fail("downloaded again"))
    assert files.find(file) == folders / "cache/raw/x/a.bin"


def test_a_download_with_another_checksum_is_refused_and_not_kept(folders, server):
    file = files.RawFile(name="x/a.bin", url=server, sha256="0" * 64)
    with pytest.raises(ValueError, match="hash"):
        files.find(file)
    assert not files.is_at_hand(file)


def test_a_missing_file_is_named_with_every_place_that_was_tried(folders, monkeypatch):
    def offline(*args, **options):
        raise requests.exceptions.ConnectionError("no network")

    monkeypatch.setattr(files.pooch, "retrieve", offline)
    file = files.RawFile(name="x/a.bin", url="http://host/a.bin", sha256="0" * 64, hint="Ask its authors.")
    with pytest.raises(
        FileNotFoundError, match=r"data/x/a\.bin.*raw/x/a\.bin.*http://host/a\.bin \(no network\).*Ask its authors"
    ):
        files.find(file)
    monkeypatch.delenv("JNF_DATA_DIR")
    with pytest.raises(FileNotFoundError, match="JNF_DATA_DIR, the folder of raw files, is not set"):
        files.find(file)
    with pytest.raises(FileNotFoundError, match=r"Expected files photos/\*.jpg"):
        files.folder("photos", "*.jpg")


def test_an_address_needs_a_checksum():
    with pytest.raises(ValueError, match="checksum"):
        files.RawFile(name="a", url="http://host/a")
