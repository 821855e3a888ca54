"""Where fetched parts lie, and how one gets there whole: built aside under a lock, then renamed.

A folder in the cache is either complete or absent, also when two fetches race or one is interrupted.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Say = Callable[[str], None]
"""Tells the person one line."""


def cache_root(environ: dict[str, str] | None = None) -> Path:
    """The folder of all parts: below ``XDG_CACHE_HOME``, else below ``~/.cache``."""
    env = os.environ if environ is None else environ
    base = env.get("XDG_CACHE_HOME") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".cache")
    return Path(base) / "otel-memory" / "parts"


@contextmanager
def locked(root: Path, name: str, say: Say) -> Iterator[None]:
    """Hold the lock of part ``name``; it ends with the process that holds it, so none is ever left behind."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: another run is fetching it; waiting for that one")
            began = time.monotonic()
            fcntl.flock(file, fcntl.LOCK_EX)
            say(f"{name}: the other run is done after {time.monotonic() - began:.0f} s")
        yield


def install(root: Path, key: str, build: Callable[[Path], None]) -> Path:
    """Build ``root/key`` aside and rename it into place. Call with the part's lock held.

    What an interrupted earlier run left of the same key is removed first; a failed build leaves nothing.
    """
    for stale in root.glob(f".building-{key}-*"):
        shutil.rmtree(stale, ignore_errors=True)
    aside = root / f".building-{key}-{os.getpid()}"
    aside.mkdir(parents=True)
    try:
        build(aside)
        final = root / key
        aside.rename(final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return final
