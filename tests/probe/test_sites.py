"""What files, lines and functions are called."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import otel_memory
from otel_memory.probe import sites

PACKAGE = Path(otel_memory.__file__).parent


class Outer:
    class Inner:
        @property
        def value(self) -> int:
            return 1

    @staticmethod
    def made() -> list[int]:
        return [number for number in range(3)]  # noqa: C416


def test_the_package_is_its_own_but_its_samples_are_programs_like_any_other() -> None:
    assert sites.is_ours(str(PACKAGE / "probe" / "burst.py"))
    assert not sites.is_ours(str(PACKAGE / "demo" / "shop.py"))
    assert not sites.is_library(str(PACKAGE / "demo" / "shop.py"))


@pytest.mark.parametrize("path", ["<frozen importlib._bootstrap>", "<string>", json.__file__, pytest.__file__])
def test_what_is_installed_is_a_library(path: str) -> None:
    assert sites.is_library(path)
    assert not sites.is_library(__file__)


def test_paths_are_told_below_the_folder_they_were_imported_from() -> None:
    assert sites.short_path(json.__file__) == "json/__init__.py"
    assert sites.short_path("<string>") == "<string>"
    assert sites.short_path("/nowhere/at/all.py") == "/nowhere/at/all.py"
    assert sites.short_path(str(Path(sys.path[-1]) / "shop" / "cart.py")) == str(Path("shop") / "cart.py")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (Outer.Inner.value.fget.__code__.co_firstlineno + 2, "Outer.Inner.value"),  # type: ignore[attr-defined]
        (Outer.made.__code__.co_firstlineno + 1, "Outer.made"),
        (1, "<module>"),
    ],
)
def test_functions_are_told_by_their_lines(line: int, name: str) -> None:
    told = sites.function_at(__file__, line)
    assert told is not None
    assert told.startswith(name)
