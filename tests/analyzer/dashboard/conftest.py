"""A real Chromium for the page's tests: one browser a module, a fresh context a test, and no console error unseen."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.analyzer.dashboard.fake_server import FakeAnalyzer

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# --lang: without it a headless browser under LANG=C names a locale that Intl refuses.
FLAGS = ("--lang=en-US", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
PATIENCE_MS = 10_000


def find_chromium() -> str:
    """The browser's path. That there is one is what the mark ``needs("chromium")`` of each test sees to."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    assert found is not None, "mark the test with needs('chromium')"
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        yield browser
        browser.close()


Serve = Callable[..., FakeAnalyzer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts fake analyzers, and ends them."""
    running: list[FakeAnalyzer] = []

    def start(fleet: str = "two", **options: Any) -> FakeAnalyzer:
        running.append(FakeAnalyzer(fleet, **options).start())
        return running[-1]

    yield start
    for analyzer in running:
        analyzer.stop()


class Watched:
    """A page with everything it complained of. `forgiven` are texts that a test provokes on purpose."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.forgiven: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("request", lambda request: self.requests.append(request.url))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def unforgiven(self) -> list[str]:
        return [text for text in self.complaints if not any(pardon in text for pardon in self.forgiven)]


Open = Callable[..., Watched]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens an address in a fresh context; at the end no console error may be left."""
    opened: list[Watched] = []

    def start(url: str, *, width: int = 1280, height: int = 800, script: str = "", **context: Any) -> Watched:
        page = browser.new_context(viewport={"width": width, "height": height}, **context).new_page()
        page.set_default_timeout(PATIENCE_MS)
        if script:
            page.add_init_script(script)
        watched = Watched(page)
        opened.append(watched)
        page.goto(url)
        return watched

    yield start
    for watched in opened:
        watched.page.context.close()
    assert [text for watched in opened for text in watched.unforgiven()] == []
