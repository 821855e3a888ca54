"""The CPU build of torch, as Debian ships it for its own Python: unpacked beside numpy and the libraries it needs.

Used by a program under test, never by the tests' own interpreter: ``environment`` says how it is found there.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import ClassVar

from tests.parts.cache import cache_root
from tests.parts.debian import APT_MEND, apt_update
from tests.parts.recipes import CachedRecipe, is_root
from tests.parts.steps import PartUnavailable, Steps, require_tool

PACKAGE = "python3-torch"
MODULES = ("torch", "numpy")
UNPACKED = "unpacked"
SITE = "site"
"""Holds the modules alone: Debian's other Python packages would stand before those of the program."""
LIBRARIES = (
    "lib/*-linux-gnu",
    "usr/lib",
    "usr/lib/*-linux-gnu",
    "usr/lib/*-linux-gnu/blas",
    "usr/lib/*-linux-gnu/lapack",
)
"""Where a system's loader looks, and where BLAS and LAPACK lie, which an installation links to from there."""


class TorchRecipe(CachedRecipe):
    """Downloads and unpacks the package with all that the machine lacks for it."""

    name = "torch"
    title = "the CPU build of torch"
    cost = "half a minute, 150 MB of downloads, 600 MB kept"
    program: ClassVar[str] = f"{SITE}/torch/__init__.py"

    @property
    def key(self) -> str:
        return "torch-debian"

    def build(self, folder: Path, steps: Steps) -> None:
        mend = APT_MEND.format(title=self.title)
        apt, dpkg = require_tool("apt-get", mend), require_tool("dpkg-deb", mend)
        if is_root():
            apt_update(steps, apt)
        archives, unpacked = folder / "archives", folder / UNPACKED
        archives.mkdir()
        unpacked.mkdir()
        simulate = [apt, "-q", "-y", "--no-install-recommends", "--print-uris", "install", PACKAGE]
        steps.run("which packages are missing", ["sh", "-c", f"{shlex.join(simulate)} > wanted"], cwd=archives)
        # Each line: 'address' name_version_architecture.deb size digest
        lines = [line for line in (archives / "wanted").read_text().splitlines() if line.startswith("'")]
        packages = [line.split()[1].partition("_")[0] for line in lines]
        if PACKAGE not in packages:
            raise PartUnavailable(f"apt-get would not download {PACKAGE}", "remove it if it is installed on the system")
        steps.run(f"apt-get downloads {len(packages)} packages", [apt, "-q", "download", *packages], cwd=archives)
        unpack = f'for archive in *.deb; do {shlex.quote(dpkg)} -x "$archive" {shlex.quote(str(unpacked))}; done'
        steps.run("unpack them", ["sh", "-e", "-c", unpack], cwd=archives)
        shutil.rmtree(archives)
        shutil.rmtree(unpacked / "usr/share")  # half of it, and not needed
        (folder / SITE).mkdir()
        for module in MODULES:
            (folder / SITE / module).symlink_to(Path("..", UNPACKED, "usr/lib/python3/dist-packages", module))

    def blocked(self) -> str | None:
        found = next((cache_root() / self.key / SITE).glob("torch/_C.cpython-*.so"), None)
        ours = f"cpython-{sys.version_info.major}{sys.version_info.minor}-"
        if found is None or ours in found.name:
            return None
        return f"Debian's torch is of another Python than this one ({found.name}); use that one for this test"


def environment() -> dict[str, str]:
    """What lets a Python program import it."""
    folder = TorchRecipe().locate()
    assert folder is not None, "torch was not fetched: mark the test with needs('torch')"
    libraries = [str(path) for pattern in LIBRARIES for path in (folder / UNPACKED).glob(pattern)]
    return {"PYTHONPATH": str(folder / SITE), "LD_LIBRARY_PATH": ":".join(libraries)}
