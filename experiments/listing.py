"""Which experiments there are; imports nothing, so that a list takes no time."""

import pathlib


def names() -> list[str]:
    """Returns the names of all experiments: `data set/model`, the files under experiments/configs."""
    folder = pathlib.Path(__file__).parent / "configs"
    return sorted(str(p.relative_to(folder).with_suffix("")) for p in folder.glob("*/*.py") if p.stem != "__init__")


def of(data: str, model: str) -> str:
    """Returns what `experiment.find` takes of a data set's model: its name, or its file where `data` is a folder of experiment files."""
    return str(pathlib.Path(data) / f"{model}.py") if is_folder(data) else f"{data}/{model}"


def models_of(data: str) -> list[str]:
    """Returns the models of a data set, or the experiment files of a folder."""
    if found := [name.split("/")[1] for name in names() if name.startswith(f"{data}/")]:
        return found
    return sorted(path.stem for path in pathlib.Path(data).glob("*.py") if not path.stem.startswith("_"))


def chosen(data: str, usual: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the models where none were named: every file of a folder of experiment files, or else the usual ones."""
    return tuple(models_of(data)) if is_folder(data) else usual


def called(data: str) -> str:
    """Returns the name of a data set; that of the folder itself where it is one of experiment files."""
    return pathlib.Path(data).resolve().name if is_folder(data) else data


def is_folder(data: str) -> bool:
    """Returns whether `data` is a folder of one's own, and no data set of the list."""
    return pathlib.Path(data).is_dir() and not any(name.startswith(f"{data}/") for name in names())
