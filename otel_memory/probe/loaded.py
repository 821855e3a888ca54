"""Modules that are there already. Owns the question whether one may be used, and never imports it."""

from __future__ import annotations

import sys
from typing import Any


def loaded(name: str) -> Any | None:
    """The module ``name`` if it has been imported to the end.

    ``sys.modules`` has a module from the first moment of its import on: another thread may then find it half made.
    """
    module = sys.modules.get(name)
    if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
        return None
    return module
