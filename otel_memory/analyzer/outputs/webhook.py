"""``WebhookOutput``: alerts as a signed JSON message to an address of the user's.

Owns the message and its signature, both described in ``docs/alerts.md``. Alerts of one service and version that come
within a short time go in one message, so that a bad release that leaks in fifty processes is one message and not fifty.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any, Final
from urllib.parse import quote, urlsplit

from otel_memory.analyzer.api_schemas import AlertModel, moment
from otel_memory.analyzer.outputs.base import AlertChange, notable
from otel_memory.analyzer.outputs.http_post import Poster

FORM: Final = 1
"""Of the message; a change that breaks receivers makes it another number."""
TIMESTAMP: Final = "X-Otel-Memory-Timestamp"
SIGNATURE: Final = "X-Otel-Memory-Signature"
MESSAGE_ID: Final = "X-Otel-Memory-Message-Id"
GROUP_SECONDS: Final = 5.0


class WebhookOutput:
    """Posts to ``url``; signs with ``secret`` where there is one."""

    def __init__(
        self,
        url: str,
        *,
        secret: str | None = None,
        page: str | None = None,
        group_seconds: float = GROUP_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``page`` is where the analyzer's page is reached."""
        address = urlsplit(url)
        # Path and query are a secret at many services that take webhooks: a digest tells two of one host apart.
        digest = hashlib.sha256(url.encode()).hexdigest()[:6]
        self.name: Final = f"webhook {address.netloc.rpartition('@')[2]} {digest}"
        self.group_seconds = group_seconds
        self._secret = secret
        self._page = None if page is None else page.rstrip("/")
        self._clock = clock
        self._poster = Poster(url, headers={"Content-Type": "application/json"}, clock=clock)

    def wants(self, change: AlertChange) -> bool:
        """A message is for somebody who acts: not of what is pending, or ended without having fired."""
        return notable(change)

    def group_of(self, change: AlertChange) -> str:
        """Service and version."""
        return json.dumps(_group(change))

    def deliver(self, change: AlertChange) -> None:
        """Posts one change."""
        self.deliver_group([change])

    def deliver_group(self, changes: Sequence[AlertChange]) -> None:
        """Posts the changes of one group in one message."""
        body = json.dumps(to_message(changes, self._clock(), self._page), ensure_ascii=False).encode(
            "utf-8", "backslashreplace"
        )
        headers = {MESSAGE_ID: message_id(changes)}
        if self._secret is not None:
            stamp = str(int(self._clock()))
            headers |= {TIMESTAMP: stamp, SIGNATURE: signature(self._secret, stamp, body)}
        self._poster.post(body, headers)

    def close(self) -> None:
        """Lets go of the connection."""
        self._poster.close()


def signature(secret: str, stamp: str, body: bytes) -> str:
    """``sha256=`` and HMAC-SHA256, in hexadecimal, of the timestamp, a full stop and the body as it is sent."""
    return f"sha256={hmac.new(secret.encode(), stamp.encode() + b'.' + body, hashlib.sha256).hexdigest()}"


def message_id(changes: Sequence[AlertChange]) -> str:
    """The same for the same changes."""
    return hashlib.sha256("\n".join(sorted(change.id for change in changes)).encode()).hexdigest()[:32]


def to_message(changes: Sequence[AlertChange], now: float, page: str | None) -> dict[str, Any]:
    """The body: each alert as REST gives it, with ``change_id``, ``changed_at`` and ``url``."""
    return {
        "form": FORM,
        "id": message_id(changes),
        "sent_at": _time(now),
        "group": _group(changes[0]),
        "alerts": [_alert(change, page) for change in changes],
    }


def _alert(change: AlertChange, page: str | None) -> dict[str, Any]:
    alert = AlertModel.of(change.alert).model_dump(mode="json", exclude={"silenced_by"})
    url = None if page is None else f"{page}/#/process/{quote(change.alert.process, safe='')}"
    return {"change_id": change.id, "changed_at": _time(change.at), **alert, "url": url}


def _group(change: AlertChange) -> dict[str, str | None]:
    process = None if change.assessment is None else change.assessment.process
    labels = change.alert.labels
    return {
        "service_name": labels.get("service_name") if process is None else process.service_name,
        "service_version": labels.get("service_version") if process is None else process.service_version,
    }


def _time(seconds: float) -> str:
    return moment(seconds).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
