"""Why a broker can't be reached: kafka-python says it in its log alone, and raises that time is over.

Owns which of its lines names the reason.
"""

from __future__ import annotations

import logging
import re
from typing import Final, Self

_FAILED: Final = re.compile(
    r"Bootstrap connection to \S+ failed: (?:\[Error \d+\] )?(?P<reason>.+?)(?: \(backoff [0-9.]+ secs\))?$"
)
_CERTAIN: Final = ("Authentication", "Authorization", "SSL")
"""After one of these the broker hangs up, which says less."""


class Refusal(logging.Handler):
    """Listens to kafka-python within ``with``. ``login``: whether a user and a password are given."""

    def __init__(self, login: bool) -> None:
        super().__init__(logging.WARNING)
        self._login = login
        self._reason: str | None = None

    def __enter__(self) -> Self:
        """Begin to listen."""
        logging.getLogger("kafka").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        logging.getLogger("kafka").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a line."""
        found = _FAILED.match(record.getMessage())
        if found is not None and not any(word in (self._reason or "") for word in _CERTAIN):
            self._reason = found["reason"]

    def explain(self, error: Exception) -> str:
        """What has happened, with the reason where one was heard."""
        name = type(error).__name__
        said = f"{name}: {str(error).removeprefix(f'{name}: ')}"
        if self._reason is None:
            return said
        hangs_up = self._login and not any(word in self._reason for word in _CERTAIN)
        hint = ". A broker that refuses a login may just hang up: look at user, password and mechanism"
        return f"{said}: {self._reason}{hint if hangs_up else ''}"
