"""The one reading of resident memory that decorated calls and one-off captures share.

Owns a kept descriptor and nothing else: opened when this module is first imported, and again in a forked child.
"""

from __future__ import annotations

import os
from typing import Final

from otel_memory.probe.sources.process import ProcessSource

SOURCE = ProcessSource()

RESIDENT: Final = SOURCE.resident
"""The same reading in two steps: what was read, and how much that is."""

read_rss = RESIDENT.rss_bytes
"""Resident bytes of this process now, or ``None``; 1 µs on Linux."""

if hasattr(os, "register_at_fork"):
    # Here and not in the probe's life cycle: the decorator works in a process that isn't instrumented too.
    os.register_at_fork(after_in_child=SOURCE.reopen)
