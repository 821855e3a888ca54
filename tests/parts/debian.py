"""Parts that come as Debian packages and are only unpacked: no root, nothing installed, no service started.

Which version comes is Debian's choice, so the folder is named by the version that came and found by its prefix.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from tests.parts.cache import Say, cache_root, install, locked
from tests.parts.recipes import Recipe, is_root
from tests.parts.steps import PartUnavailable, Steps, require_tool

APT_MEND = "use a Debian or Ubuntu machine, or install {title} by hand"


def apt_update(steps: Steps, apt: str) -> None:
    """Refresh the package lists, which a fresh image does not have."""
    steps.run("apt-get update", [apt, "-q", "-o", "DPkg::Lock::Timeout=300", "update"])


class DebianRecipe(Recipe):
    """Downloads ``package`` and unpacks it."""

    package: ClassVar[str]
    program: ClassVar[str]

    def locate(self) -> Path | None:
        folders = [path for path in cache_root().glob(f"{self.name}-*") if (path / self.program).exists()]
        return max(folders, key=lambda path: path.stat().st_mtime, default=None)

    def fetch(self, say: Say) -> Path:
        root = cache_root()
        with locked(root, self.name, say):
            found = self.locate()
            if found is not None:
                return found
            mend = APT_MEND.format(title=self.title)
            apt, dpkg = require_tool("apt-get", mend), require_tool("dpkg-deb", mend)
            log = root / "logs" / f"{self.name}.log"
            log.unlink(missing_ok=True)
            steps = Steps(self.name, log, say)
            version = ""

            def build(folder: Path) -> None:
                nonlocal version
                archive = self._download(folder, steps, apt)
                version = archive.name.split("_")[1].replace("%3a", ":")
                steps.run(f"unpack {archive.name}", [dpkg, "-x", str(archive), str(folder)])
                archive.unlink()
                if not (folder / self.program).exists():
                    raise PartUnavailable(f"{archive.name} has no {self.program}", f"read {log}")
                self.adapt(folder)

            whole = install(root, f".unpacked-{self.name}", build)
            final = root / f"{self.name}-{version}"
            shutil.rmtree(final, ignore_errors=True)
            return whole.rename(final)

    def adapt(self, folder: Path) -> None:
        """Make the unpacked package run from where it lies."""

    def _download(self, folder: Path, steps: Steps, apt: str) -> Path:
        argv = [apt, "-q", "download", self.package]
        try:
            steps.run(f"apt-get download {self.package}", argv, cwd=folder)
        except PartUnavailable:
            if not is_root():
                raise
            apt_update(steps, apt)
            steps.run(f"apt-get download {self.package}", argv, cwd=folder)
        return next(folder.glob("*.deb"))


class AlertmanagerRecipe(DebianRecipe):
    """Prometheus Alertmanager with amtool."""

    name = "alertmanager"
    title = "Prometheus Alertmanager"
    cost = "a few seconds, 30 MB"
    package = "prometheus-alertmanager"
    program = "usr/bin/prometheus-alertmanager"

    # Debian's build reads its templates from this folder, which only an installed package has, and no option moves it.
    INSTALLED = b"/usr/share/prometheus/alertmanager"
    # The same length, and relative: found when it runs with the unpacked package as its working directory.
    UNPACKED = b"usr/share/prometheus/alertmanager/"

    def adapt(self, folder: Path) -> None:
        """Point the program at its templates in ``folder``, where the harness starts it."""
        program = folder / self.program
        content = program.read_bytes()
        program.write_bytes(content.replace(self.INSTALLED, self.UNPACKED))


class PrometheusRecipe(DebianRecipe):
    """Prometheus with promtool."""

    name = "prometheus"
    title = "Prometheus with promtool"
    cost = "a few seconds, 150 MB"
    package = "prometheus"
    program = "usr/bin/prometheus"
