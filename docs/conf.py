"""Sphinx settings: `make docs` builds the site into build/docs."""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "extensions")]

import jnf_jax  # noqa: E402 (it lies beside this folder)

project = "jnf_jax"
author = "the jnf_jax authors"
release = version = jnf_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "committed",  # tables out of the committed JSON
    "api",  # a page for every module
]
html_theme = "furo"
html_title = "jnf_jax"
default_role = "code"  # docstrings write `names` so
exclude_patterns = ["extensions", "notebooks/.ipynb_checkpoints"]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = "$ "

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = []

# Notebooks hold no outputs in git: the build runs them, with small sizes unless JNF_NOTEBOOK_SIZE=full.
nb_execution_mode = "force"  # a cache would not see that the library changed
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
os.environ.setdefault("JNF_NOTEBOOK_SIZE", "small")
if os.environ["JNF_NOTEBOOK_SIZE"] == "small":  # nearly all of their time is compilation
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
        " --xla_cpu_parallel_codegen_split_count=1",
    )
os.environ.setdefault("PYTHONPATH", str(HERE.parent))


def setup(app):
    """Deals the notebooks, which take nearly all of the time, out to the processes: Sphinx gives neighbouring pages to one of them."""
    app.connect("env-before-read-docs", deal)


def deal(app, env, names, *, num_piles=5):
    """Orders the names of the pages anew, in place."""
    names[:] = [name for first in range(num_piles) for name in names[first::num_piles]]
