"""One page for every package of `jnf_jax`, written before the build from the modules that are there, so that a new file has its reference."""

import pathlib
import pkgutil
import re

import jnf_jax

HERE = pathlib.Path(__file__).parents[1] / "api"


def write(app) -> None:
    """Writes api/<package>.md; a page that has not changed keeps its date, and is not built again."""
    del app
    HERE.mkdir(exist_ok=True)
    packages, single = {}, []
    for module in sorted(pkgutil.iter_modules(jnf_jax.__path__), key=lambda m: m.name):
        if module.ispkg:
            folder = pathlib.Path(jnf_jax.__path__[0]) / module.name
            packages[module.name] = [f"jnf_jax.{module.name}.{m.name}" for m in pkgutil.iter_modules([str(folder)])]
        else:
            single.append(f"jnf_jax.{module.name}")
    pages = {"core": ("Core", single), **{name: (f"jnf_jax.{name}", found) for name, found in packages.items()}}
    for name, (title, modules) in pages.items():
        _keep(HERE / f"{name}.md", f"# {title}\n\n" + "\n".join(map(_module, modules)))
    for stale in {p.stem for p in HERE.glob("*.md")} - set(pages):
        (HERE / f"{stale}.md").unlink()


def _module(name: str) -> str:
    return f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n   :show-inheritance:\n```\n"


def _keep(path: pathlib.Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def plain(app, what, name, obj, options, lines) -> None:
    """Makes plain text of a docstring fit for reStructuredText: bars, stars, `x_-j` are no markup, indented formulas are literal blocks."""
    del app, name, obj, options
    found, previous = [], ""
    for line in lines:
        indented = line.startswith("    ") and not previous.startswith(" ")
        if what == "module" and indented and found and not found[-1]:
            found += [".. code-block:: none", ""]
        literal = what == "module" and line.startswith("    ")
        found.append(line if literal else _escape(line))
        previous = line or previous
    lines[:] = found


def _escape(line: str) -> str:
    parts = line.split("`")  # what stands between backticks stays as it is
    return "`".join(part if i % 2 else re.sub(r"[|*]|(?<=\w)_(?!\w)", r"\\\g<0>", part) for i, part in enumerate(parts))


def setup(app):
    """Writes the pages as soon as the builder is known."""
    app.connect("builder-inited", write)
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon
    return {"version": "1", "parallel_read_safe": True}
