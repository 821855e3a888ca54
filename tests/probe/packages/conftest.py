"""Packages written for one test, on the search path while it runs, and gone from the interpreter afterwards."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Write = Callable[[dict[str, str]], str]
_number = itertools.count()


@pytest.fixture
def write_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes ``{file name: source}`` as a package of a name of its own (``PKG`` in the sources), and returns it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written: list[str] = []

    def write(files: dict[str, str]) -> str:
        name = f"made_up_{next(_number)}"
        for file_name, source in files.items():
            path = tmp_path / name / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source.replace("PKG", name))
        importlib.invalidate_caches()
        written.append(name)
        return name

    yield write
    for key in list(sys.modules):
        if key.partition(".")[0] in written:
            del sys.modules[key]
