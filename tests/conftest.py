"""Fixtures and rules that every test shares. Owns no helper of a single subject: those stand beside their tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from types import FrameType
from typing import Any

import pytest

from tests.harness import Analyzer, Chromium
from tests.harness.part import seen
from tests.parts.recipes import NEEDED, all_recipes

# It builds and installs wheels, which is no part of a change's quick loop: `./dev check` names it.
collect_ignore = ["test_wheel.py"]

_missing = pytest.StashKey[dict[str, str]]()
_not_run = pytest.StashKey[dict[str, list[str]]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """A SIGTERM (of a CI that gives up) unwinds like Ctrl-C, so that every part that was started is ended."""

    def terminated(number: int, frame: FrameType | None) -> None:
        # Where the exception is lost (raised in a finalizer, say), the session still ends after this test.
        session.shouldstop = f"signal {number}"
        raise KeyboardInterrupt(session.shouldstop)

    signal.signal(signal.SIGTERM, terminated)


def pytest_configure(config: pytest.Config) -> None:
    """No SDK setting of the person's shell may decide a test."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]
    config.stash[_missing] = {}
    config.stash[_not_run] = {}


def _why_missing(name: str) -> str:
    """Why part ``name`` can't be used here, with the mend; empty when it can."""
    recipes = all_recipes()
    if name not in recipes:
        raise pytest.UsageError(f"needs({name!r}): there is no such part; there are {', '.join(recipes)}")
    recipe = recipes[name]
    if recipe.locate() is None:
        return f"{recipe.title} is not here; mend: ./dev parts {name}"
    return recipe.blocked() or ""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip (and remember) a test whose real part is missing; with REQUIRE_PARTS=1 fail it if the part is in NEEDED."""
    known = item.config.stash[_missing]
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            if name not in known:
                known[name] = _why_missing(name)
            if not known[name]:
                continue
            if os.environ.get("REQUIRE_PARTS") == "1" and name in NEEDED:
                pytest.fail(f"REQUIRE_PARTS=1, but {known[name]}", pytrace=False)
            item.config.stash[_not_run].setdefault(name, []).append(item.nodeid)
            pytest.skip(known[name])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say loudly what did not run for want of a real part, and how to get it."""
    for name, tests in config.stash[_not_run].items():
        terminalreporter.section(f"NOT RUN: {len(tests)} tests need {name}", sep="!", red=True, bold=True)
        terminalreporter.line(config.stash[_missing][name])
        for test in tests:
            terminalreporter.line(f"  {test}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Forget the parts that ended before this test."""
    seen[:] = [part for part in seen if part.running]
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Show the end of the own log of every part that a failed test had to do with."""
    report = yield
    if report.failed:
        for part in dict.fromkeys(seen):
            report.sections.append((f"log of {part.name}", part.tail()))
    return report


@pytest.fixture
def analyzer() -> Iterator[Analyzer]:
    """A running analyzer with an empty data folder."""
    with Analyzer() as part:
        yield part


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    """A running browser; its test needs the mark ``needs("chromium")``. See `Chromium` for why it is of a module."""
    with Chromium() as browser:
        yield browser
