"""Silences that all analyzers of a group heed: a record each in the compacted topic of the assessments.

Owns their form there: the key is ``silence:`` and the id, the value the silence as JSON, or none once nobody lists it
any more. Whoever makes or ends a silence writes it; every analyzer reads all of them (``Fleet``).
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from pydantic import TypeAdapter

from otel_memory.analyzer.kafka.client import Connection, KafkaError
from otel_memory.analyzer.matching import BadSilence, Silence, check
from otel_memory.analyzer.silences import NotShared, Silences

_logger = logging.getLogger(__name__)

PREFIX: Final = b"silence:"
SEND_SECONDS: Final = 10.0
FORM: Final = TypeAdapter(Silence)


class SharedSilences:
    """The way of this analyzer's silences to the others', and of theirs to here."""

    def __init__(self, connection: Connection, topic: str, silences: Silences) -> None:
        self._connection = connection
        self._topic = topic
        self._silences = silences
        self._lock = threading.Lock()
        self._producer: Any = None
        silences.share_by(self.share)

    def share(self, silence: Silence) -> None:
        """Write a silence; returns when the broker has it. From any thread.

        Raises:
            NotShared: it can't be written now.
        """
        try:
            with self._lock:
                if self._producer is None:
                    self._producer = self._connection.plain_writer()
                sent = self._producer.send(self._topic, key=PREFIX + silence.id.encode(), value=FORM.dump_json(silence))
                sent.get(timeout=SEND_SECONDS)
        except KafkaError as error:
            raise NotShared(f"the other analyzers can't be told through Kafka now: {error}") from error

    def take(self, key: bytes, value: bytes | None) -> None:
        """Take a record whose key begins with ``PREFIX``."""
        if value is None:
            return  # it was over long ago: each analyzer forgets it by its own clock
        try:
            silence = FORM.validate_json(value)
            check(silence)
        except (ValueError, BadSilence) as error:
            _logger.warning("Kafka: the record %r of %s is no silence: %s", key[:80], self._topic, error)
            return
        self._silences.take(silence)

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=1.0)
