"""How often XLA has compiled a program in this process, since this was imported."""

import jax

_COUNT = [0]


def _count(event, duration, **_):
    _COUNT[0] += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)


def count():
    return _COUNT[0]
