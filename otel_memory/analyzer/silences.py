"""``Silences``: what is silenced now, kept over a restart.

Owns the set of silences and says when it changes, also by the passing of time. Never delivers and never judges: alerts
that are silenced go on as they would, they are only not told of (``outputs/lane.py``).
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from otel_memory.analyzer.matching import BadSilence, Matcher, Silence, check, labels_of
from otel_memory.analyzer.model import Alert
from otel_memory.analyzer.store.errors import StoreError
from otel_memory.analyzer.store.silence_table import SilenceTable

_logger = logging.getLogger(__name__)

MAX_SILENCES: Final = 1000
"""Active and coming ones."""
KEPT_SECONDS: Final = 5 * 86400.0
"""How long one that is over is still listed."""
LONGEST_SLEEP: Final = 30.0


class NotShared(Exception):
    """Others that should heed a silence can't be told of it."""


class Silences:
    """See the module. Thread-safe. ``listen`` before ``start``."""

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """``path`` is the store's file; without one silences last as long as this object.

        Raises:
            StoreError: the store can't be read.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._table = None if path is None else SilenceTable(path)
        self._silences: dict[str, Silence] = {}
        if self._table is not None:
            self._table.prune(clock() - KEPT_SECONDS)
            self._silences = {silence.id: silence for silence in self._table.load()}
        self._listeners: tuple[Callable[[], object], ...] = ()
        self._share: Callable[[Silence], None] = lambda _silence: None
        self._version = 0
        self._changed = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def version(self) -> int:
        """Grows whenever something may be silenced that was not, or the other way round."""
        return self._version

    def listen(self, listener: Callable[[], object]) -> None:
        """Calls ``listener`` after each growth of ``version``, on any thread; it must not block."""
        self._listeners = (*self._listeners, listener)

    def share_by(self, share: Callable[[Silence], None]) -> None:
        """Calls ``share`` with each silence that is made or ended here, before it is kept. It may raise NotShared."""
        self._share = share

    def take(self, silence: Silence) -> None:
        """Keeps a silence that was made or ended elsewhere; of the same one the last that was told counts."""
        with self._lock:
            now = self._clock()
            if self._silences.get(silence.id) == silence or silence.ends_at < now - KEPT_SECONDS:
                return
            try:
                self._keep(silence, now)
            except StoreError as error:
                _logger.warning("a silence that another analyzer told is not kept over a restart: %s", error)
                self._silences = {**self._silences, silence.id: silence}
        self._tell()

    def start(self) -> None:
        """Watches the time: silences begin and end by themselves."""
        self._thread = threading.Thread(target=self._watch, name="otel-memory-silences", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and closes the file. Idempotent."""
        self._stopping = True
        self._changed.set()
        if self._thread is not None:
            self._thread.join(5.0)
        with self._lock:
            if self._table is not None:
                self._table.close()

    def silencing(self, alert: Alert) -> tuple[str, ...]:
        """The ids of the silences that keep this alert from being told of now, sorted."""
        now = self._clock()
        silences = self._silences
        if not silences:
            return ()
        labels = labels_of(alert)
        return tuple(sorted(one.id for one in silences.values() if one.active(now) and one.matches(labels)))

    def all(self) -> list[Silence]:
        """Every silence that is known, also ones that are over: the one that ends last first."""
        return sorted(self._silences.values(), key=lambda silence: (-silence.ends_at, silence.id))

    def add(
        self,
        matchers: Sequence[Matcher],
        *,
        ends_at: float,
        starts_at: float | None = None,
        created_by: str = "",
        comment: str = "",
    ) -> Silence:
        """A new silence, kept before this returns. Times in seconds since the epoch, ``starts_at`` now unless given.

        Raises:
            BadSilence: it makes no sense, or there are too many.
            NotShared: the other analyzers can't be told.
            StoreError: it can't be kept.
        """
        now = self._clock()
        silence = Silence(
            id=secrets.token_hex(8),
            matchers=tuple(matchers),
            starts_at=now if starts_at is None else starts_at,
            ends_at=ends_at,
            created_at=now,
            created_by=created_by,
            comment=comment,
        )
        check(silence)
        if ends_at <= now:
            raise BadSilence("ends_at has passed already")
        with self._lock:
            if sum(one.ends_at > now for one in self._silences.values()) >= MAX_SILENCES:
                raise BadSilence(f"there are {MAX_SILENCES} silences already; end some, or make them wider")
            if self._table is not None:
                self._table.prune(now - KEPT_SECONDS)
            self._share(silence)
            self._keep(silence, now)
        self._tell()
        return silence

    def end(self, silence_id: str) -> Silence | None:
        """Ends a silence now; None where there is no such silence. One that is over stays as it is.

        Raises:
            NotShared: the other analyzers can't be told.
            StoreError: that can't be kept.
        """
        with self._lock:
            silence = self._silences.get(silence_id)
            now = self._clock()
            if silence is None or silence.ends_at <= now:
                return silence
            silence = replace(silence, starts_at=min(silence.starts_at, now), ends_at=now)
            self._share(silence)
            self._keep(silence, now)
        self._tell()
        return silence

    def _keep(self, silence: Silence, now: float) -> None:
        if self._table is not None:
            self._table.save(silence)
        kept = {key: one for key, one in self._silences.items() if one.ends_at >= now - KEPT_SECONDS}
        # A new one, so that readers need no lock.
        self._silences = {**kept, silence.id: silence}

    def _tell(self) -> None:
        self._version += 1
        self._changed.set()
        for listener in self._listeners:
            try:
                listener()
            except Exception:
                _logger.exception("telling of silences failed; the analyzer goes on")

    def _watch(self) -> None:
        before = self._active()
        while not self._stopping:
            self._changed.wait(self._until_next())
            self._changed.clear()
            active = self._active()
            if active != before and not self._stopping:
                before = active
                self._tell()

    def _active(self) -> frozenset[str]:
        now = self._clock()
        return frozenset(one.id for one in self._silences.values() if one.active(now))

    def _until_next(self) -> float:
        now = self._clock()
        moments = [moment for one in self._silences.values() for moment in (one.starts_at, one.ends_at)]
        wait = min((moment - now for moment in moments if moment > now), default=LONGEST_SLEEP)
        # A little later than the moment, and not for too long: the clock may be set.
        return min(wait + 0.01, LONGEST_SLEEP)
