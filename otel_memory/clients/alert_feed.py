"""Alerts of one analyzer: as they are now, and every change of one from then on.

Owns that nothing is missed and nothing told twice, also over a connection that is lost. Never formats anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from otel_memory.clients.api_client import ApiClient, ClientError, Json

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
MAX_KNOWN: Final = 50_000


class Feed(Protocol):
    """Where alerts come from. Each is an object as REST gives it."""

    def current(self) -> list[Json]:
        """Every alert that is known, those that are over too. Raises ClientError."""

    def follow(self, complain: Callable[[str], None]) -> Iterator[Json]:
        """What fires and is pending now, then every change of a state, for ever; ``complain`` is told of what goes
        wrong in between. Raises ClientError where not even the beginning can be had."""


class Known:
    """Which state of which alert was told."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, str]] = {}

    def news(self, alert: Json) -> bool:
        """Whether this state of this episode was not told; it is from now on."""
        key, state = str(alert.get("id")), (str(alert.get("state")), str(alert.get("starts_at")))
        if self._told.get(key) == state:
            return False
        self._told.pop(key, None)
        if len(self._told) >= MAX_KNOWN:
            del self._told[next(iter(self._told))]
        self._told[key] = state
        return True


class AnalyzerFeed:
    """From REST and server-sent events."""

    def __init__(self, client: ApiClient, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._sleep = sleep

    def current(self) -> list[Json]:
        """See ``Feed``."""
        return list(self._client.items("/api/v1/alerts"))

    def follow(self, complain: Callable[[str], None]) -> Iterator[Json]:
        """See ``Feed``."""
        known = Known()
        begun = False
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                with self._client.stream("/api/v1/stream") as events:
                    # Asked for once the stream is open, so that nothing falls in between.
                    for alert in self.current():
                        if known.news(alert) and (begun or alert.get("state") != "resolved"):
                            yield alert
                    begun = True
                    pause = FIRST_PAUSE_SECONDS
                    for name, alert in events:
                        if name == "alert" and known.news(alert):
                            yield alert
            except ClientError as error:
                if not begun:
                    raise
                complain(f"{str(error).splitlines()[0]}; trying again in {pause:g} s")
            self._sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
