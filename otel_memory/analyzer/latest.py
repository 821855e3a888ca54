"""What only the newest point of a metric tells of a process: its limit, and what its memory consists of.

Owns which point is the newest one and which limit counts. No history: that is ``windows``'.
"""

from __future__ import annotations

from typing import Final

MAX_PARTS: Final = 16
_NEVER: Final = float("-inf")


class Limit:
    """The limit that ends the process: ``size`` in bytes and what ``kind`` it is, None where there is none."""

    __slots__ = ("_at", "kind", "size")

    def __init__(self) -> None:
        self.size: int | None = None
        self.kind: str | None = None
        self._at = _NEVER

    def learn(self, time: float, value: float, kind: str | None) -> bool:
        """Take a limit of the process; False where a younger one is known. A value of 0 says that there is none."""
        if time < self._at:
            return False
        self._at = time
        self.size = int(value) if value > 0 else None
        self.kind = kind if value > 0 else None
        return True

    def learn_of_runtime(self, time: float, value: float, kind: str) -> bool:
        """Take a limit of the runtime's own heap; False where the process has a limit, which is harder."""
        return self.kind in (None, kind) and self.learn(time, value, kind)


class Breakdown:
    """Parts of the resident memory."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: dict[str, tuple[float, int]] = {}

    def learn(self, part: str, time: float, value: float) -> bool:
        """Take the size of a part; False where a younger one is known or it can't be."""
        known = self._parts.get(part)
        if (known is not None and time < known[0]) or value < 0:
            return False
        if known is not None or len(self._parts) < MAX_PARTS:
            self._parts[part] = time, int(value)
        return True

    @property
    def newest(self) -> dict[str, int] | None:
        """The parts of the newest report in bytes; None where nothing reports them."""
        newest = max((time for time, _ in self._parts.values()), default=0.0)
        return {part: size for part, (time, size) in self._parts.items() if time == newest} or None
