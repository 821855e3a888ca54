"""What the demo's subprocesses find around them, so that they behave the same whoever starts the demo, and where.

Owns their environment, their ports, the check that all they need is installed, and the demo's folder. Starts nothing.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
FOLDER_PREFIX: Final = "otel-memory-demo-"
LOCK_NAME: Final = "demo.lock"

NEEDED: Final = (
    "fastapi",
    "uvicorn",
    "numpy",
    "grpc",
    "opentelemetry.sdk",
    "opentelemetry.distro",
    "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry.instrumentation.fastapi",
)
"""What the subprocesses import: a missing one would show late, as a sample that never reports."""

_KEPT: Final = frozenset(
    {"HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "TEMP", "TMP", "TMPDIR", "TZ", "USER", "XDG_CACHE_HOME"}
    | {"LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONDONTWRITEBYTECODE"}
    | {"PYTHONPYCACHEPREFIX", "VIRTUAL_ENV"}
)
_KEPT_PREFIXES: Final = ("LC_", "DYLD_", "CONDA_")
_LAUNCHERS_FOLDER: Final = os.path.join("opentelemetry", "instrumentation", "auto_instrumentation")


class DemoError(Exception):
    """The demo could not go on; the message says why and what to do."""


def check_installed() -> None:
    """Raises `DemoError`, with the mend, if something that the subprocesses need is not installed."""
    missing = [name for name in NEEDED if not _is_installed(name)]
    if missing:
        raise DemoError(f"{' and '.join(missing)} must be installed.\n  mend: pip install 'otel-memory[all]'")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


def launcher() -> list[str]:
    """How to start a program under ``opentelemetry-instrument`` of this very installation."""
    # One that is merely on the PATH may be of another environment, and would load that one's instrumentation.
    script = shutil.which("opentelemetry-instrument", path=sysconfig.get_path("scripts"))
    if script is not None:
        return [script]
    return [sys.executable, "-c", "from opentelemetry.instrumentation.auto_instrumentation import run; run()"]


def environment(environ: Mapping[str, str], extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a subprocess: what Python needs of ``environ``, and ``extra``.

    Not the rest: a caller's ``OTEL_METRICS_EXPORTER=none``, ``HTTP_PROXY``, ``PYTHONWARNINGS=error`` or
    ``WEB_CONCURRENCY=4`` is meant for other programs, and would keep this one from showing anything.
    """
    kept = {name: value for name, value in environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    # The subprocesses run in another folder, and not under a launcher that the demo itself may have been started with.
    paths = [os.path.abspath(path) for path in kept.pop("PYTHONPATH", "").split(os.pathsep) if path]
    paths = [path for path in paths if not path.endswith(_LAUNCHERS_FOLDER)]
    root = Path(__file__).resolve().parents[2]
    if root.name not in ("site-packages", "dist-packages"):
        paths.append(str(root))
    if paths:
        kept["PYTHONPATH"] = os.pathsep.join(paths)
    return {**kept, "PYTHONUNBUFFERED": "1", "NO_PROXY": HOST, **(extra or {})}


def free_ports(*preferred: int) -> list[int]:
    """TCP ports that are free on loopback now, all different: each preferred one if it is, 0 for any."""
    with ExitStack() as held:
        return [held.enter_context(_bound(port)).getsockname()[1] for port in preferred]


def _bound(preferred: int) -> socket.socket:
    for port in dict.fromkeys((preferred, 0)):
        probe = socket.socket()
        try:
            # As servers do: a port that has only connections left over from an earlier server is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return probe
        except OSError:
            probe.close()
    raise DemoError(f"no TCP port is free on {HOST}")


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for data and logs, removed in the end; those of earlier demos that were killed are removed too."""
    base = Path(tempfile.gettempdir())
    _remove_orphans(base)
    path = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=base))
    try:
        with (path / LOCK_NAME).open("w") as lock:
            # Held by this process alone, and let go by the kernel when it ends, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _remove_orphans(base: Path) -> None:
    for path in base.glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError):
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            with (path / LOCK_NAME).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its demo is alive
                shutil.rmtree(path, ignore_errors=True)
