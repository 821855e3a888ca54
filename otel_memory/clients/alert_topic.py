"""Alerts from the Kafka topic that analyzers write to: CloudEvents, one for each change of a state.

Owns its consumer, which belongs to no group and commits nothing. Reads committed records alone, so that a change that
an analyzer took back is never seen. Never formats anything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

from otel_memory.clients.alert_feed import Known
from otel_memory.clients.api_client import ClientError, Json
from otel_memory.humanize import printable

BOOTSTRAP_MS: Final = 10_000
POLL_MS: Final = 1000
QUIET_POLLS: Final = 3
"""So many polls without a record mean the end: the marks that end transactions count as offsets, and come to nobody."""
TYPE: Final = "otel_memory.alert.changed"


class TopicFeed:
    """See ``alert_feed.Feed``; use it in a ``with`` block.

    Raises:
        ClientError: there is no client for Kafka, the brokers can't be reached, or have no such topic.
    """

    def __init__(self, bootstrap: str, topic: str, security: Mapping[str, str]) -> None:
        """``security`` are kafka-python's arguments of that kind."""
        try:
            from kafka import KafkaConsumer, TopicPartition  # type: ignore[import-untyped]
            from kafka.errors import KafkaError  # type: ignore[import-untyped]
        except ImportError as error:
            raise ClientError(
                "--kafka-bootstrap needs kafka-python\n  mend: pip install 'otel-memory[kafka]'"
            ) from error
        self._errors: type[Exception] = KafkaError
        self._bootstrap = printable(bootstrap)
        sasl = {"sasl_plain_username": "sasl_username", "sasl_plain_password": "sasl_password"}
        renamed = {new: security[old] for new, old in sasl.items() if old in security}
        others = {name: value for name, value in security.items() if name not in sasl.values()}
        try:
            self._consumer: Any = KafkaConsumer(
                bootstrap_servers=[one.strip() for one in bootstrap.split(",") if one.strip()],
                client_id="otel-memory-alerts",
                bootstrap_timeout_ms=BOOTSTRAP_MS,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                allow_auto_create_topics=False,
                metrics_enabled=False,
                **others,
                **renamed,
            )
        except (KafkaError, OSError, ValueError, AssertionError) as error:
            raise self._unreachable(error) from error
        try:
            numbers = self._consumer.partitions_for_topic(topic)
            if not numbers:
                raise ClientError(
                    f"{self._bootstrap} has no topic {printable(topic)!r}\n"
                    "  mend: --kafka-alerts-topic names it; an analyzer with --kafka-create-topics makes it"
                )
            self._partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
            self._consumer.assign(self._partitions)
            self._consumer.seek_to_beginning(*self._partitions)
        except KafkaError as error:
            self.__exit__(None, None, None)
            raise self._unreachable(error) from error
        except ClientError:
            self.__exit__(None, None, None)
            raise
        self._events: dict[str, None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._consumer.close(timeout_ms=1000)

    def current(self) -> list[Json]:
        """What the topic says of every alert by now: firing first, then pending, then what is over."""
        latest: dict[str, Json] = {}
        for alert in self._history(lambda _text: None):
            latest[str(alert.get("id"))] = alert
        order = {"firing": 0, "pending": 1, "resolved": 2}
        return sorted(latest.values(), key=lambda alert: (order.get(str(alert.get("state")), 3), str(alert.get("id"))))

    def follow(self, complain: Callable[[str], None]) -> Iterator[Json]:
        """See ``alert_feed.Feed``."""
        known = Known()
        for alert in self.current():
            if known.news(alert) and alert.get("state") != "resolved":
                yield alert
        failing = False
        while True:
            try:
                alerts = self._poll(complain)
                failing = False
            except self._errors as error:
                if not failing:
                    complain(f"{self._unreachable(error)}".splitlines()[0] + "; it is tried again")
                failing = True
                time.sleep(POLL_MS / 1000)
                continue
            yield from (alert for alert in alerts if known.news(alert))

    def _history(self, complain: Callable[[str], None]) -> Iterator[Json]:
        try:
            ends = self._consumer.end_offsets(self._partitions)
            quiet = 0
            while quiet < QUIET_POLLS and any(self._consumer.position(one) < end for one, end in ends.items()):
                alerts = self._poll(complain)
                quiet = 0 if alerts else quiet + 1
                yield from alerts
        except self._errors as error:
            raise self._unreachable(error) from error

    def _poll(self, complain: Callable[[str], None]) -> list[Json]:
        alerts = []
        for records in self._consumer.poll(timeout_ms=POLL_MS).values():
            for record in records:
                event = _event(record.value)
                if event is None:
                    complain(f"record {record.topic}/{record.partition}/{record.offset} is no alert and was passed")
                elif self._is_new(event):
                    alerts.append(event["data"]["alert"])
        return alerts

    def _is_new(self, event: Json) -> bool:
        key = str(event.get("id"))
        if key in self._events:
            return False
        self._events[key] = None
        if len(self._events) > 10_000:
            del self._events[next(iter(self._events))]
        return True

    def _unreachable(self, error: Exception) -> ClientError:
        return ClientError(
            f"the brokers {self._bootstrap} can't be used ({printable(f'{type(error).__name__}: {error}')})\n"
            "  mend: --kafka-bootstrap names a broker as HOST:PORT; --kafka-security-protocol says how it is spoken to"
        )


def _event(value: bytes | None) -> Json | None:
    """The CloudEvent in a record; None where it is none of ours."""
    try:
        event = json.loads(value or b"")
        fits = event["type"] == TYPE and isinstance(event["data"]["alert"]["id"], str)
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    return event if fits else None
