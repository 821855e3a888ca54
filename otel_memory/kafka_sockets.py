"""The sockets of kafka-python's clients: which there are, so that all of them are closed once they are of no use.

kafka-python 3.0.12 leaves a socket that did not connect, and one in the middle of its handshake, to the collector. An
application may have switched that off: a dead broker would then cost it a descriptor at every attempt. The way to
connect is registered as kafka-python takes other ways: by the scheme of the argument ``proxy_url``.

Shared by the exporters and the analyzer. Importing it fails where kafka-python is missing or has no such place.
"""

from __future__ import annotations

import socket
import ssl
import threading
import weakref
from collections.abc import Collection
from typing import Any, Final, Self

from kafka.net.inet import KafkaNetSocket  # type: ignore[import-untyped]

URL: Final = "otel-memory-direct://"
"""For ``proxy_url``. There is no proxy."""

_made: Final[weakref.WeakKeyDictionary[socket.socket, int]] = weakref.WeakKeyDictionary()
"""Socket -> the thread that made it."""


def close_all(threads: Collection[int]) -> None:
    """Close what these threads have made. They must be over, or be the caller's."""
    for each, thread in list(_made.items()):
        if thread in threads:
            each.close()


class ClosingSocket(KafkaNetSocket):  # type: ignore[misc]
    """One is made for each attempt to connect."""

    SCHEMES: Final = ("otel-memory-direct",)

    def __init__(self, url: str | None = None) -> None:
        super().__init__(url)
        self._socket: socket.socket | None = None

    def socket(self, *arguments: Any, **named: Any) -> socket.socket:
        """A new socket."""
        made: socket.socket = super().socket(*arguments, **named)
        _made[made] = threading.get_ident()
        self._socket = made
        return made

    async def connect(self, *arguments: Any, **named: Any) -> Any:
        """Connect, or close the socket."""
        try:
            return await super().connect(*arguments, **named)
        except BaseException:
            if self._socket is not None:
                self._socket.close()
            raise


class TlsSocket(ssl.SSLSocket):
    """Takes the place of a socket that is connected."""

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        made = super().__new__(cls, *arguments, **named)
        _made[made] = threading.get_ident()
        return made


def tls(cafile: str | None, certfile: str | None, keyfile: str | None) -> ssl.SSLContext:
    """As kafka-python would make it from the same files, but once, and with sockets that are known here.

    Raises:
        OSError: a file can't be read, or is not in PEM form.
    """
    context = ssl.create_default_context(cafile=cafile or None)
    if certfile:
        context.load_cert_chain(certfile, keyfile or None)
    context.sslsocket_class = TlsSocket
    return context
