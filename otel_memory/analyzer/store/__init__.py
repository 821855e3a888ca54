"""The analyzer's memory on disk: one SQLite file with one writer, many readers, and an outbox.

A face: names only.
"""

from otel_memory.analyzer.store.errors import StoreError
from otel_memory.analyzer.store.outbox import Outbox, Pending
from otel_memory.analyzer.store.reader import Reader, SeriesData
from otel_memory.analyzer.store.settings import StoreSettings
from otel_memory.analyzer.store.writer import FILE_NAME, Restored, Sizes, Store

__all__ = [
    "FILE_NAME",
    "Outbox",
    "Pending",
    "Reader",
    "Restored",
    "SeriesData",
    "Sizes",
    "Store",
    "StoreError",
    "StoreSettings",
]
