"""The topics: what they should be like, whether they are, and making them.

Owns their settings. Never changes a topic that is there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from kafka.admin import ConfigResource, ConfigResourceType  # type: ignore[import-untyped]
from kafka.errors import TopicAlreadyExistsError  # type: ignore[import-untyped]

from otel_memory.analyzer.kafka.client import Connection, KafkaError, Topics

DAY_MS: Final = 86_400_000
DEFAULT_PARTITIONS: Final = 6
WAIT_MS: Final = 15_000
_COMPACTED: Final = {
    "cleanup.policy": "compact",
    "segment.ms": "3600000",
    "segment.bytes": str(64 * 2**20),
    "min.cleanable.dirty.ratio": "0.1",
    "delete.retention.ms": str(DAY_MS),
}


def settings_of(topics: Topics, window_seconds: float) -> dict[str, dict[str, str]]:
    """Topic -> its settings. What comes in is kept for a day, or twice the window where that is longer."""
    # The broker's time: a sender's clock that is wrong then moves nobody else's time.
    incoming = {
        "retention.ms": str(max(DAY_MS, int(2 * window_seconds * 1000))),
        "message.timestamp.type": "LogAppendTime",
    }
    wanted = {
        topics.metrics: incoming,
        topics.logs: incoming,
        topics.alerts: {"retention.ms": str(30 * DAY_MS)},
        topics.assessments: _COMPACTED,
    }
    if topics.dead_letters is not None:
        wanted[topics.dead_letters] = {"retention.ms": str(7 * DAY_MS)}
    return wanted


def missing(connection: Connection, topics: Topics) -> list[str]:
    """Those that are not there.

    Raises:
        KafkaError: the cluster can't be reached.
    """
    admin = connection.admin()
    try:
        there = set(admin.list_topics())
    finally:
        admin.close()
    return [name for name in settings_of(topics, 0) if name not in there]


def create(
    connection: Connection, topics: Topics, *, window_seconds: float, partitions: int, replication: int = -1
) -> list[str]:
    """Make those that are not there; their names. ``replication`` -1: as the brokers have it by default.

    A topic of metrics or logs that is made beside the other one gets as many partitions as that has.

    Raises:
        KafkaError: the cluster can't be reached, or does not allow it.
    """
    admin = connection.admin()
    made = []
    try:
        there = set(admin.list_topics())
        count = _partitions(admin, [name for name in (topics.metrics, topics.logs) if name in there])
        for name, configs in settings_of(topics, window_seconds).items():
            if name in there:
                continue
            wanted = {"num_partitions": count or partitions, "replication_factor": replication, "configs": configs}
            try:
                admin.create_topics({name: wanted}, timeout_ms=WAIT_MS)
            except TopicAlreadyExistsError:
                # Another analyzer was quicker.
                continue
            made.append(name)
        # A broker knows some time later of what another one has made.
        deadline = time.monotonic() + WAIT_MS / 1000
        while not set(made) <= set(admin.list_topics()) and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        admin.close()
    return made


def problems(connection: Connection, topics: Topics, window_seconds: float) -> list[str]:
    """What is wrong with the topics: sentences that say how to mend it.

    Raises:
        KafkaError: the cluster can't be reached.
    """
    admin = connection.admin()
    try:
        there = set(admin.list_topics())
        wanted = settings_of(topics, window_seconds)
        absent = [name for name in wanted if name not in there]
        found = []
        if absent:
            found.append(
                f"{', '.join(absent)}: not there. Mend: otel-memory topics create "
                f"--kafka-bootstrap {','.join(connection.bootstrap)}, or let whoever may create "
                f"{'it' if len(absent) == 1 else 'them'}"
            )
        incoming = [name for name in (topics.metrics, topics.logs) if name in there]
        counts = {name: _partitions(admin, [name]) for name in incoming}
        if len(set(counts.values())) > 1:
            said = " and ".join(f"{name} has {count}" for name, count in counts.items())
            found.append(
                f"{said} partitions: a process's events may be shown by another worker than its memory. "
                "Mend: give both equally many"
            )
        present = [name for name in wanted if name in there]
        found += _wrong_settings(admin, topics, present, window_seconds)
    finally:
        admin.close()
    return found


def _partitions(admin: Any, names: Sequence[str]) -> int:
    return max((len(topic["partitions"]) for topic in admin.describe_topics(list(names))), default=0) if names else 0


def _wrong_settings(admin: Any, topics: Topics, names: Sequence[str], window_seconds: float) -> list[str]:
    found = []
    for name in names:
        if name not in (topics.assessments, topics.metrics):
            continue
        try:
            is_now = _settings_now(admin, name)
        except KafkaError:
            # Not everybody may look.
            continue
        if name == topics.assessments and "compact" not in is_now.get("cleanup.policy", "compact"):
            found.append(f"{name}: cleanup.policy={is_now['cleanup.policy']}, so judgements get lost. Mend: compact")
        retention = int(is_now.get("retention.ms", -1))
        if name == topics.metrics and 0 <= retention < window_seconds * 1000:
            found.append(
                f"{name}: retention.ms={retention} is less than the window of {window_seconds:g} s, so a worker that "
                f"takes over knows less. Mend: raise it, or lower --kafka-window-seconds"
            )
    return found


def _settings_now(admin: Any, name: str) -> dict[str, str]:
    described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)], config_filter="all")
    entries: dict[str, Any] = next(iter(described.values()))[name]
    return {key: str(entry["value"]) for key, entry in entries.items()}
