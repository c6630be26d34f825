"""The command `jnf-jax`: `jnf-jax train ..` does what `python -m experiments.train ..` does in a clone.

A verb is a file of `experiments/` that is run under `if __name__ == "__main__"` and has a function `main`. Adding a verb is adding a file.
"""

import ast
import difflib
import importlib
import os
import pathlib
import sys

import jnf_jax_experiments

_FOLDER = jnf_jax_experiments.ROOT / "experiments"
_SCRIPT = 'if __name__ == "__main__":'
_LIST = "list"


def verbs() -> dict[str, pathlib.Path]:
    """Returns verb -> file; `inference_gap.py` is `inference-gap`."""
    files = sorted(_FOLDER.glob("*.py"))
    return {path.stem.replace("_", "-"): path for path in files if _SCRIPT in path.read_text()}


def main() -> None:
    """Runs the command; a reader that goes away (`jnf-jax list | head`) is no error."""
    try:
        run()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere at the interpreter's exit
        sys.exit(1)


def run() -> None:
    """Runs the verb that the command line names; without one, lists them."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
        print(overview())
        return
    verb, *rest = sys.argv[1:]
    if verb == _LIST:
        from experiments import listing

        print("\n".join(listing.names()))
        return
    known = verbs()
    if verb not in known:
        print(
            f"error: Expected a verb of {', '.join([*known, _LIST])}, got {verb!r}.{nearest(verb, [*known, _LIST])}",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.argv = [f"jnf-jax {verb}", *rest]
    from experiments import experiment

    experiment.main(importlib.import_module(f"experiments.{known[verb].stem}").main)


def overview() -> str:
    """Returns the list of verbs, each with the first line of its file."""
    about = {verb: _first_line(path) for verb, path in verbs().items()} | {_LIST: "Lists the experiments."}
    width = max(map(len, about))
    lines = [f"  {verb:<{width}}  {text}" for verb, text in about.items()]
    return "\n".join(["usage: jnf-jax VERB ..   (jnf-jax VERB --help says more)", "", *lines])


def nearest(name: str, known: list[str]) -> str:
    """Returns a suggestion, or nothing where no name is near."""
    found = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def _first_line(path: pathlib.Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]


if __name__ == "__main__":
    main()
