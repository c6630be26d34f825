"""Which experiments there are; imports nothing, so that a list takes no time."""

import pathlib


def names() -> list[str]:
    """Returns the names of all experiments: `data set/model`, the files under experiments/configs."""
    folder = pathlib.Path(__file__).parent / "configs"
    return sorted(str(p.relative_to(folder).with_suffix("")) for p in folder.glob("*/*.py") if p.stem != "__init__")
