"""What each piece of evidence weighs. Written by ``python -m tests.benchmarks.bench_judgement --fit``; not by hand."""

from __future__ import annotations

from typing import Final

WEIGHTS: Final = (1.45, 0.33, 1.5, 0.66, 1.1, 0.69, 0.21)
"""One for each of ``evidence.TERMS``, in the same order; none is negative."""
INTERCEPT: Final = -1.03
