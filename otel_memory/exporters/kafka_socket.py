"""kafka-python's way to connect, but for one thing: a socket that did not connect is closed at once.

kafka-python 3.0.12 leaves it to the garbage collector, and an application may have switched that off: a dead broker
would then cost it a descriptor at every attempt. Registered the way in which kafka-python takes other ways to connect:
by the scheme of the argument ``proxy_url``.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from kafka.net.inet import KafkaNetSocket  # type: ignore[import-untyped]

URL: Final = "otel-memory-direct://"
"""For ``proxy_url``. There is no proxy."""


class ClosingSocket(KafkaNetSocket):  # type: ignore[misc]
    """One is made for each attempt to connect."""

    SCHEMES: Final = ("otel-memory-direct",)

    def __init__(self, url: str | None = None) -> None:
        super().__init__(url)
        self._made: socket.socket | None = None

    def socket(self, *arguments: Any, **named: Any) -> socket.socket:
        """A new socket."""
        made: socket.socket = super().socket(*arguments, **named)
        self._made = made
        return made

    async def connect(self, *arguments: Any, **named: Any) -> Any:
        """Connect, or close the socket."""
        try:
            return await super().connect(*arguments, **named)
        except BaseException:
            if self._made is not None:
                self._made.close()
            raise
