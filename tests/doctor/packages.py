"""Installed packages that a test makes up: folders with metadata, found as pip's are, and nothing else found."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

# What the doctor loads while it works, found before the search path is narrowed.
import otel_memory.probe.instrumentor  # noqa: F401


class Packages:
    """The one folder that is searched for packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        name: str,
        version: str = "1.0",
        requires: Iterable[str] = (),
        entry_points: dict[str, dict[str, str]] | None = None,
    ) -> None:
        """``entry_points``: group -> name -> target."""
        place = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        place.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        (place / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {text}" for text in requires), ""]))
        points = [
            line
            for group, members in (entry_points or {}).items()
            for line in (f"[{group}]", *(f"{point} = {target}" for point, target in members.items()))
        ]
        (place / "entry_points.txt").write_text("\n".join([*points, ""]))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packages:
    """An environment with nothing installed."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return Packages(tmp_path)
