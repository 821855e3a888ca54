"""Which interpreter of the process this is. Imports nothing that a subinterpreter may refuse."""

from __future__ import annotations

import sys
from typing import Any


def in_main_interpreter() -> bool:
    """False in a subinterpreter, whose threads, signals and fork hooks are not those of the process."""
    module = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    try:
        interpreters = __import__(module)
        return bool(_identity(interpreters.get_current()) == _identity(interpreters.get_main()))
    except Exception:  # another implementation of Python: it has no subinterpreters
        return True


def _identity(interpreter: Any) -> int:
    # 3.13 gives (id, whence), the versions before an id
    return int(interpreter[0] if isinstance(interpreter, tuple) else interpreter)
