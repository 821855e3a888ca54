"""sherlock-ai, the peer that does for a decorated call what the probe does: in a folder of its own.

It isn't a dependency of this repository: it brings fifty packages of other trades. The benchmark that wants it installs
it once into the cache, from the package index, and puts that folder **last** on the path of the process that it
measures; so both are measured with one interpreter and one OpenTelemetry. Where it can't be had, the rows say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "1.14.9"
NAME = f"sherlock-ai {VERSION}"
INSTALL_SECONDS = 120


def sherlock_folder() -> Path | None:
    """The folder that holds it, installed now if it wasn't; None where that fails (the reason goes to stderr)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-memory"
    folder = cache / "bench" / f"sherlock-ai-{VERSION}-{sys.implementation.cache_tag}"
    if (folder / "sherlock_ai").is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    uv = shutil.which("uv") or shutil.which("uv", path=str(cache / "uv"))
    pip = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    try:
        subprocess.run(
            [*pip, "--quiet", "--target", str(fresh), f"sherlock-ai=={VERSION}"],
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
        fresh.rename(folder)
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        print(f"  {NAME} could not be installed, so its rows are missing: {reason[-1]}", file=sys.stderr)
        return None
    return folder
