"""The experiments of `jnf_jax`, and the command `jnf-jax`.

A clone holds them in its folder `experiments`; the wheel installs that folder inside this package, so that no top-level package `experiments`
appears beside other people's. Importing `jnf_jax_experiments` makes it importable as `experiments`, in this process only.
"""

import pathlib
import sys

_HERE = pathlib.Path(__file__).resolve().parent
ROOT = _HERE if (_HERE / "experiments").is_dir() else _HERE.parent
"""The folder that holds `experiments`: this one in an installed wheel, the clone's root in a clone."""

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
