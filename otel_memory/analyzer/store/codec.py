"""The nouns of the analyzer as JSON text, for the store's rows.

Owns nothing but the form of those rows. Fields that a later version adds need a default, so that older rows load.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from otel_memory.analyzer.model import Alert, Assessment, Event, ProcessInfo
from otel_memory.analyzer.outputs.base import AlertChange

_logger = logging.getLogger(__name__)
T = TypeVar("T")

PROCESS: Final = TypeAdapter(ProcessInfo)
ASSESSMENT: Final = TypeAdapter(Assessment)
ALERT: Final = TypeAdapter(Alert)
EVENT: Final = TypeAdapter(Event)
CHANGE: Final = TypeAdapter(AlertChange)


def load_all(adapter: TypeAdapter[T], bodies: Iterable[str]) -> list[T]:
    """The rows as objects. One that doesn't fit is left out and told, so that it can't keep a service from starting."""
    loaded = []
    for body in bodies:
        try:
            loaded.append(adapter.validate_json(body))
        except ValidationError as error:
            _logger.warning("store: a row was left out: %s", error)
    return loaded
