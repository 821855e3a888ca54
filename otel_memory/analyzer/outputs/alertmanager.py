"""``AlertmanagerOutput``: alerts in a Prometheus Alertmanager, by its API v2.

Owns the form of an alert there. Labels are identity: two alerts with different labels are two alerts. So they hold
only what stays the same over the life of an alert; figures and times are annotations. An alert there ends at its
``endsAt`` by itself, so what fires is told again and again (``Repeating``), each time with an end a little later.

One output for each Alertmanager: instances of a cluster do not hand on alerts to each other, every one must be told.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlsplit

from otel_memory.analyzer.model import Alert, AlertState
from otel_memory.analyzer.outputs.base import AlertChange, notable
from otel_memory.analyzer.outputs.http_post import Poster

REPEAT_SECONDS: Final = 60.0
END_SECONDS: Final = 300.0
"""An alert that was not told of again for so long has ended: Alertmanager's own default (``resolve_timeout``)."""
MAX_ALERTS: Final = 500
"""In one request."""


class AlertmanagerOutput:
    """Tells the Alertmanager at ``url`` of what fires and what has ended."""

    def __init__(
        self,
        url: str,
        *,
        page: str | None = None,
        auth: tuple[str, str] | None = None,
        token: str | None = None,
        repeat_seconds: float = REPEAT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``page`` is where the analyzer's page is reached; ``auth`` user and password, ``token`` a bearer token."""
        address = urlsplit(url)
        # The name tells instances apart and is shown; it must not change when a secret does.
        self.name: Final = f"alertmanager {address.netloc.rpartition('@')[2]}{address.path.rstrip('/')}"
        self.repeat_seconds = repeat_seconds
        self._page = None if page is None else page.rstrip("/")
        self._clock = clock
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._poster = Poster(f"{url.rstrip('/')}/api/v2/alerts", headers=headers, auth=auth, clock=clock)

    def wants(self, change: AlertChange) -> bool:
        """Alertmanager knows nothing of pending alerts."""
        return notable(change)

    def deliver(self, change: AlertChange) -> None:
        """Posts one alert."""
        self._post([change.alert])

    def repeat(self, alerts: Sequence[Alert]) -> None:
        """Posts all that fires, so that it goes on there."""
        for begin in range(0, len(alerts), MAX_ALERTS):
            self._post(alerts[begin : begin + MAX_ALERTS])

    def close(self) -> None:
        """Lets go of the connection."""
        self._poster.close()

    def _post(self, alerts: Sequence[Alert]) -> None:
        now = self._clock()
        self._poster.post(json.dumps([to_alert(alert, now, self._page) for alert in alerts]).encode(), {})


def to_alert(alert: Alert, now: float, page: str | None) -> dict[str, Any]:
    """The alert as API v2 takes it (``postableAlert``)."""
    starts_at = alert.starts_at if alert.fired_at is None else alert.fired_at
    ends_at = alert.ends_at if alert.state is AlertState.RESOLVED and alert.ends_at is not None else now + END_SECONDS
    # Event time may be ahead of the clock here: an end that has not come yet would leave it firing.
    ends_at = min(ends_at, now) if alert.state is AlertState.RESOLVED else ends_at
    form: dict[str, Any] = {
        # An empty value is the same as no label there.
        "labels": {name: value for name, value in {**alert.labels, "alertname": alert.name}.items() if value},
        "annotations": {**alert.annotations, "alert_id": alert.id},
        # It refuses an alert that ends before it starts.
        "startsAt": _time(min(starts_at, ends_at)),
        "endsAt": _time(ends_at),
    }
    if page is not None:
        form["generatorURL"] = f"{page}/#/process/{quote(alert.process, safe='')}"
    return form


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(max(seconds, 0.0), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
