"""What every receiver shares: the callable they hand bytes to, how it may refuse, and who may call.

A receiver checks size, type, encoding and token, hands the body on, and puts the outcome into the words of its
transport. It never looks into a body.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

# The common protos come without types.
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from otel_memory.analyzer.decode import Encoding, MalformedPayload, Signal, response
from otel_memory.analyzer.model import Decoded

__all__ = [
    "Budget",
    "Encoding",
    "Ingest",
    "MalformedPayload",
    "Overloaded",
    "ReceiverError",
    "Signal",
    "authorized",
    "response",
    "rpc_status",
]

MAX_BODY_BYTES: Final = 4 * 2**20
"""Bytes of one request, as sent and decompressed: what gRPC allows by default."""
MAX_BUFFERED_BYTES: Final = 128 * 2**20
"""Bytes of all requests that a receiver holds at one moment."""
OVERLOADED_RETRY_SECONDS: Final = 1.0


class Overloaded(Exception):
    """The request can't be taken now. The sender should come again after ``retry_after_seconds``."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(f"overloaded, come again in {retry_after_seconds:g} s")
        self.retry_after_seconds = retry_after_seconds


class ReceiverError(Exception):
    """A receiver can't start; the text names the setting to change."""


class Ingest(Protocol):
    """Where the bodies go."""

    async def submit(self, body: bytes, signal: Signal, encoding: Encoding) -> Decoded:
        """Take one request body and come back when it is processed.

        Raises ``MalformedPayload`` (the sender must not repeat it) or ``Overloaded`` (it should).
        """


class Budget:
    """Bounds the bytes that one receiver holds for all its requests together."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self._held

    @contextmanager
    def share(self) -> Iterator[Share]:
        """One request's share; what it took goes back when the block ends."""
        share = Share(self)
        try:
            yield share
        finally:
            self._held -= share.held

    def _take(self, size: int) -> None:
        if self._held + size > self._max_bytes:
            raise Overloaded(OVERLOADED_RETRY_SECONDS)
        self._held += size


class Share:
    """What one request holds of a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.held = 0

    def take(self, size: int) -> None:
        """Takes ``size`` bytes more, or raises ``Overloaded``."""
        self._budget._take(size)
        self.held += size


def rpc_status(message: str, code: int = 0, retry_after_seconds: float | None = None) -> bytes:
    """A serialized ``google.rpc.Status``, with ``google.rpc.RetryInfo`` where a time to come again is given."""
    status = Status(code=code, message=message)
    if retry_after_seconds is not None:
        whole = int(retry_after_seconds)
        retry = RetryInfo()
        retry.retry_delay.seconds = whole
        retry.retry_delay.nanos = int((retry_after_seconds - whole) * 1e9)
        status.details.add().Pack(retry)
    serialized: bytes = status.SerializeToString()
    return serialized


def authorized(token: str | None, authorization: str | bytes | None) -> bool:
    """True where no token is asked for, or ``authorization`` is ``Bearer`` and that token.

    Compares in a time that doesn't tell how much of the token was right.
    """
    if token is None:
        return True
    if authorization is None:
        return False
    given = authorization if isinstance(authorization, bytes) else authorization.encode("utf-8", "replace")
    scheme, _, credentials = given.partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(credentials.strip(), token.encode("utf-8"))
