"""Living beside contrib's ``opentelemetry-instrumentation-system-metrics``, whichever of the two loads first.

Owns two things: which metric names contrib emits at this moment, so that the probe leaves those to it and no name
is emitted twice; and the mending of contrib's numbers after a fork. Never imports contrib: if the application
hasn't, there is nothing to do.

Contrib caches ``psutil.Process(os.getpid())`` when it is made, so a forked worker goes on reporting its **parent's**
memory. The probe left those names to contrib, so a wrong number there would be the probe's doing too: in the child
the cached process is replaced by the child's own.
"""

from __future__ import annotations

import os
import sys
from typing import Final

MODULE: Final = "opentelemetry.instrumentation.system_metrics"


class _Seen:
    """This module's only state: the last meter that contrib held, and all names it ever registered."""

    meter: object | None = None
    names: frozenset[str] = frozenset()


_seen: Final = _Seen()


def _instrumentor() -> object | None:
    """Contrib's singleton, if it has been made. Never makes one."""
    module = sys.modules.get(MODULE)
    return None if module is None else getattr(getattr(module, "SystemMetricsInstrumentor", None), "_instance", None)


def claimed(metric_name: str) -> bool:
    """Whether contrib emits ``metric_name``. Costs a few dictionary look-ups.

    Contrib's ``_uninstrument`` does nothing, so what it once registered it emits for good; and every call of its
    constructor runs ``__init__`` on the singleton again and forgets the meter and the configuration in use. So both
    are noted when a meter is there, and the note is kept.
    """
    instrumentor = _instrumentor()
    if instrumentor is None:
        return False
    meter = getattr(instrumentor, "_meter", None)
    if meter is not None and meter is not _seen.meter:
        try:
            _seen.names = _seen.names.union(instrumentor._config)  # type: ignore[attr-defined]
        except (AttributeError, TypeError):
            return False
        _seen.meter = meter
    return metric_name in _seen.names


def forget() -> None:
    """Forget what was noted about contrib."""
    _seen.meter, _seen.names = None, frozenset()


def refresh_after_fork() -> bool:
    """In the child: point contrib at the child. Returns whether there was something to mend."""
    instrumentor = _instrumentor()
    process = getattr(instrumentor, "_proc", None)
    if process is None or getattr(process, "pid", None) == os.getpid():
        return False
    # psutil is there: contrib has made a psutil.Process. type() keeps whatever class it chose.
    instrumentor._proc = type(process)(os.getpid())  # type: ignore[attr-defined]
    return True
