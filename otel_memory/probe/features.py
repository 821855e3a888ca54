"""Which features the settings ask for, each imported only then.

Owns the list and nothing else: one generator entry a feature, in the order in which they start; they stop in reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_memory.probe.feature import Feature, Surroundings

Build = Callable[["Surroundings"], "Feature | None"]
"""Makes the feature if the settings ask for it. Has to be cheap where they don't, and import nothing then."""


def builders() -> Iterator[tuple[str, Build]]:
    """(part, how to build it) of every feature. One that raises while it is built is counted and left out."""
    yield from ()
