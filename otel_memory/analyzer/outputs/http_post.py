"""``Poster``: one POST to an address of the user's, and what its answer means.

Owns time limits, proxies, redirects (never followed: a secret would go where nobody sent it) and the difference
between "try again" and "never". Knows nothing of what is posted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

import httpx
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_memory.analyzer.api_guard import is_loopback
from otel_memory.analyzer.outputs.base import Busy, Refused
from otel_memory.humanize import printable
from otel_memory.version import __version__

TIMEOUT_SECONDS: Final = 5.0
"""To connect, and between two signs of life; the whole answer may take twice that."""
MAX_ANSWER_BYTES: Final = 2000
"""So much of an answer is read: only what a failure says is of interest."""
_TRY_AGAIN: Final = frozenset({408, 425, 429})


class Poster:
    """Posts to ``url``. For one thread."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``auth`` is user and password of basic authentication; ``clock`` gives seconds since the epoch."""
        self._url = httpx.URL(url)
        self._timeout = timeout_seconds
        self._clock = clock
        self._http = httpx.Client(
            headers={"User-Agent": f"otel-memory/{__version__}", **(headers or {})},
            auth=auth,
            timeout=timeout_seconds,
            follow_redirects=False,
            # A proxy set for the outside world must not be asked for this machine itself; no .netrc with our secrets.
            trust_env=auth is None and not is_loopback(self._url.host),
        )

    def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Returns once the other side has taken ``body``.

        Raises:
            Refused: it never will: another 4xx than 408, 425 and 429, or a redirect.
            Busy: it may later: 5xx, 408, 425, 429.
            ConnectionError: it can't be reached, or does not answer in time.
        """
        try:
            with suppress_instrumentation(), self._http.stream("POST", self._url, content=body, headers=headers) as it:
                # One that was taken is taken, whatever else is said.
                said = b"" if it.is_success else self._read(it)
        except httpx.HTTPError as error:
            raise ConnectionError(printable(f"{type(error).__name__}: {error}")) from None
        self._judge(it, said)

    def close(self) -> None:
        """Lets go of the connections."""
        self._http.close()

    def _read(self, answer: httpx.Response) -> bytes:
        deadline = time.monotonic() + self._timeout
        body = b""
        for chunk in answer.iter_raw(MAX_ANSWER_BYTES):
            body += chunk
            if len(body) >= MAX_ANSWER_BYTES or time.monotonic() > deadline:
                break
        return body[:MAX_ANSWER_BYTES]

    def _judge(self, answer: httpx.Response, body: bytes) -> None:
        status = answer.status_code
        if answer.is_success:
            return
        text = f"HTTP status {status}"
        said = printable(" ".join(body.decode("utf-8", "replace").split()))[:200]
        if said:
            text += f": {said}"
        if status >= 500 or status in _TRY_AGAIN:
            raise Busy(text, self._retry_after(answer.headers.get("retry-after", "")))
        if answer.has_redirect_location:
            target = printable(answer.headers.get("location", ""))[:200]
            text = f"HTTP status {status}: a redirect to {target} is not followed; give the address itself"
        raise Refused(text)

    def _retry_after(self, given: str) -> float:
        """Seconds that an answer asks to wait; 0 where it does not say."""
        if given.isascii() and given.isdigit():
            return min(float(given), 86400.0)
        try:
            return max(0.0, parsedate_to_datetime(given).timestamp() - self._clock())
        except (ValueError, TypeError, OverflowError):
            return 0.0
