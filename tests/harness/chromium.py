"""A real, headless Chromium that Playwright drives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self

from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, sync_playwright

from tests.parts.chromium import ChromiumRecipe

FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root in containers; the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--lang=en-US",  # uPlot throws under the locale that LANG=C.UTF-8 gives
)


class Chromium:
    """Use it in ``with``. As long as it is open, ``asyncio.run`` fails in this thread: Playwright runs a loop in it.

    That is why the fixture ``chromium`` is of a module, not of the session.
    """

    def __init__(self) -> None:
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None

    def start(self) -> Self:
        executable = ChromiumRecipe().locate()
        assert executable is not None, "Chromium is not installed: mark the test with needs('chromium')"
        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(
                executable_path=executable, args=list(FLAGS), headless=True, timeout=30_000
            )
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def version(self) -> str:
        assert self._browser is not None
        return self._browser.version

    @contextmanager
    def page(
        self, *, theme: Literal["light", "dark"] = "light", width: int = 1280, height: int = 800, strict: bool = True
    ) -> Iterator[Page]:
        """A page in a fresh profile. With ``strict``, an error in its console or an uncaught one fails the test."""
        assert self._browser is not None, "Chromium was not started"
        errors: list[str] = []

        def console(message: ConsoleMessage) -> None:
            if message.type == "error":
                errors.append(message.text)

        context = self._browser.new_context(
            color_scheme=theme, viewport={"width": width, "height": height}, locale="en-US", timezone_id="UTC"
        )
        try:
            page = context.new_page()
            page.set_default_timeout(10_000)
            page.on("console", console)
            page.on("pageerror", lambda error: errors.append(str(error)))
            yield page
            assert not (strict and errors), f"the page reported errors: {errors}"
        finally:
            context.close()

    def stop(self) -> None:
        """Close the browser and Playwright's driver. Idempotent."""
        browser, self._browser = self._browser, None
        playwright, self._playwright = self._playwright, None
        try:
            if browser is not None:
                browser.close()
        finally:
            if playwright is not None:
                playwright.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
