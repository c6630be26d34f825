import pytest
import scripts


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    scripts.run("train", "linear_gaussian/jnf", "--workdir", workdir, *scripts.SHORT)
    return workdir
