"""Chromium: one that is installed, else Debian's package (which root alone can install)."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.parts.cache import Say, cache_root, locked
from tests.parts.debian import apt_update
from tests.parts.recipes import Recipe, is_root
from tests.parts.steps import PartUnavailable, Steps, require_tool

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MEND = "install Chromium (Debian: sudo apt-get install chromium), or run this as root"


class ChromiumRecipe(Recipe):
    """The browser that the page's tests drive."""

    name = "chromium"
    title = "Chromium"
    cost = "up to a minute, 400 MB with its libraries"

    def locate(self) -> Path | None:
        found = next(filter(None, map(shutil.which, NAMES)), None)
        return Path(found) if found else None

    def fetch(self, say: Say) -> Path:
        root = cache_root()
        with locked(root, self.name, say):
            found = self.locate()
            if found is not None:
                return found
            apt = require_tool("apt-get", MEND)
            if not is_root():
                raise PartUnavailable("Chromium is not installed, and only root can install it", MEND)
            log = root / "logs" / "chromium.log"
            log.unlink(missing_ok=True)
            steps = Steps(self.name, log, say)
            env = {"DEBIAN_FRONTEND": "noninteractive"}
            argv = [apt, "-q", "-y", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends", "install", "chromium"]
            apt_update(steps, apt)
            steps.run("apt-get install chromium", argv, env=env)
            found = self.locate()
            if found is None:
                raise PartUnavailable("the package chromium brought no browser", f"read {log}")
            return found
