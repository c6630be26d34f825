"""Work of many parts on a Ray cluster: each part a task, begun again on another worker where one is lost.

Ray is optional. RAY_ADDRESS names a cluster; without it Ray uses this machine. The package and the files must be found under the same paths on every node.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jnf_jax_experiments

_RETRIES = 20  # of a part whose worker was lost; parts take up what they had done


def run(function: Callable[..., Any], parts: Sequence[tuple], *, cpus: float = 1, gpus: float = 0) -> Iterator[Any]:
    """Yields `function(*part)` of each part, as they finish.

    Args:
      function: a function of a module; called again with the same part where its worker was lost.
      parts: its arguments.
      cpus: cores that a part takes.
      gpus: accelerators that a part takes.

    Raises:
      ValueError: if Ray is not installed, or no node has what a part takes.
    """
    ray = _imported()
    if not ray.is_initialized():
        paths = [str(jnf_jax_experiments.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ray.init(
            log_to_driver=True,
            include_dashboard=False,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}},
        )
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        if (most := max((node["Resources"].get(name, 0) for node in ray.nodes()), default=0)) < wanted:
            raise ValueError(f"Expected a Ray node with {wanted:g} {name}, got at most {most:g}.")
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES)(function)
    pending = [task.remote(*part) for part in parts]
    while pending:
        done, pending = ray.wait(pending)
        yield ray.get(done[0])


def end_with_parent() -> None:
    """Lets this process be killed when the one that started it ends: a lost task must not go on training beside its successor."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _imported():
    try:
        import ray
    except ImportError as error:
        raise ValueError('Expected Ray for `--on ray`, got none: pip install "jnf_jax[ray]".') from error
    return ray
