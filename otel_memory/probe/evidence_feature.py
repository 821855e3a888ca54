"""The feature ``evidence``: notices that the floor of memory grows, and has it looked into, once for each growth.

Owns when to look. On the sampler's thread it reads three numbers and judges them (``growth.py``); the looks
themselves (``evidence_looks.py``) are made in the background: the first when growth is noticed, the second half a
window later if it still goes on. A growth that has ended by then is nobody's business: no burst, no event. Without
growth there is no census and no burst at all, and what they need, near a megabyte of code, isn't loaded.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry._logs import SeverityNumber

from otel_memory import names
from otel_memory.probe.feature import Feature
from otel_memory.probe.growth import GrowthWatch, Rise, Signal
from otel_memory.probe.sources.procfs import anonymous_bytes

if TYPE_CHECKING:
    from otel_memory.probe.evidence import Evidence
    from otel_memory.probe.evidence_looks import Before, Options
    from otel_memory.probe.feature import Surroundings

REPEAT_SECONDS: Final = 600.0
"""The same growth is reported again after so long, if it still goes on."""
_JUDGE_TIMES: Final = 9
"""How many times in a window the floor is judged."""
_SETTLE: Final = 0.5
_PATIENCE: Final = 1.5
"""Windows between the first look and the second, and until a growth that has paused is given up."""
_GRACE: Final = 0.5
"""Windows after the start that aren't looked at: the program is loaded, pools and caches are made."""
_QUIET: Final = 4.0
"""Windows without growth after which the next growth is another one."""


class _Round:
    """One growth that is being looked into."""

    __slots__ = ("before", "busy", "looked", "options", "rise", "started")

    def __init__(self, rise: Rise, started: float) -> None:
        self.rise = rise
        self.started = started
        self.options: Options | None = None
        self.before: Before | None = None
        self.looked: float | None = None
        self.busy = True


class EvidenceFeature(Feature):
    """``anonymous`` reads resident bytes that no file backs; the looks are arguments for tests."""

    part = "evidence"

    def __init__(
        self,
        around: Surroundings,
        *,
        anonymous: Callable[[], int | None] = anonymous_bytes,
        look: Callable[..., Before] | None = None,
        conclude: Callable[..., Evidence] | None = None,
    ) -> None:
        settings = around.settings
        self._around = around
        self._anonymous = anonymous
        self._look = look
        self._conclude = conclude
        # A floor needs readings: with a slow sampler the window is as long as three readings for each of its parts.
        self._window = max(settings.evidence_window_seconds, 18 * settings.interval_seconds)
        self._reset()

    def _reset(self) -> None:
        self._watch = GrowthWatch(self._window, _GRACE * self._window)
        self._round: _Round | None = None
        self._next_judgement = 0.0
        self._next_round = 0.0
        self._next_burst = 0.0
        self._last_growth: float | None = None
        self._event_id = ""
        self._rounds = 0
        self._found: Evidence | None = None
        self._given_up = 0
        self._generation = getattr(self, "_generation", 0) + 1

    def tick(self, now: float) -> None:
        """Read, and judge when it is time."""
        parts = self._around.parts
        heap = parts.heap.latest()
        in_c = [size for size in (heap.arena_bytes, heap.mmap_bytes) if size is not None]
        anonymous = self._anonymous()
        values: dict[Signal, float | None] = {
            "anonymous": parts.process.latest().rss_bytes if anonymous is None else anonymous,
            "heap": sum(in_c) if in_c else None,
            "blocks": heap.blocks,
        }
        self._watch.add(now, values)
        if now < self._next_judgement:
            return
        self._next_judgement = now + self._window / _JUDGE_TIMES
        current = self._round
        if current is None:
            self._begin(now)
        elif not current.busy:
            self._go_on(current, now)

    def _begin(self, now: float) -> None:
        rise = self._watch.rise()
        if rise is None:
            return
        if self._last_growth is None or now - self._last_growth > max(REPEAT_SECONDS, _QUIET * self._window):
            self._event_id, self._rounds = str(uuid.uuid4()), 0
        elif now < self._next_round:
            self._last_growth = now
            return
        self._last_growth = now
        started = self._round = _Round(rise, now)
        if not self._around.background.submit(self.part, partial(self._first, started)):
            self._round = None

    def _first(self, started: _Round) -> None:
        settings = self._around.settings
        try:
            from otel_memory.probe import evidence_looks as looks

            started.options = looks.Options(
                methods=settings.evidence,
                max_pause_seconds=settings.evidence_max_pause_seconds,
                frames=settings.evidence_frames,
            )
            look = self._look or looks.look
            started.before = look(started.options, lambda: self._around.background.stopping)
        finally:
            if started.before is None:
                self._round = None
            started.busy = False

    def _go_on(self, current: _Round, now: float) -> None:
        if current.looked is None:
            current.looked = now  # the first look itself takes time where the interpreter is busy
        waited = now - current.looked
        if waited < _SETTLE * self._window:
            return
        if self._watch.goes_on(current.rise, current.started):
            current.busy = True
            if not self._around.background.submit(self.part, partial(self._second, current, now, self._generation)):
                current.busy = False
        elif waited > _PATIENCE * self._window:
            self._given_up += 1
            self._round = None

    def _second(self, current: _Round, now: float, generation: int) -> None:
        background, settings = self._around.background, self._around.settings
        seconds = settings.evidence_burst_seconds if now >= self._next_burst else 0.0
        try:
            assert current.before is not None
            assert current.options is not None
            from otel_memory.probe.evidence_looks import conclude

            rise = current.rise
            found = (self._conclude or conclude)(
                current.before,
                current.options,
                growth=None if rise.signal == "blocks" else rise.per_second,
                window_seconds=rise.seconds + now - current.started,
                burst_seconds=seconds,
                stopping=lambda: background.stopping,
            )
            ended = time.monotonic()
            self._next_burst = ended + found.burst_seconds / settings.evidence_share
            self._next_round = ended + REPEAT_SECONDS
            if generation != self._generation or background.stopping:
                return
            self._rounds += 1
            self._found = found
            self._tell(found)
        finally:
            if self._generation == generation:
                self._round = None

    def _tell(self, found: Evidence) -> None:
        attributes = {names.EVENT_ID: self._event_id, names.EVIDENCE_ROUND: self._rounds, **found.attributes()}
        self._around.emit(names.EVENT_EVIDENCE, found.summary(), attributes, severity=SeverityNumber.WARN)

    def after_fork(self) -> None:
        """In the child: its memory is its own, and so is its growth."""
        self._reset()

    def status(self) -> dict[str, Any]:
        """What was found last, and how often."""
        found = self._found
        return {
            "looking": self._round is not None,
            "rounds": self._rounds,
            "ended_before_they_were_sure": self._given_up,
            "found": None if found is None else {"summary": found.summary(), **found.attributes()},
        }
