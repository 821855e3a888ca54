"""What each piece of evidence weighs. Written by ``python -m tests.benchmarks.bench_judgement --fit``; not by hand."""

from __future__ import annotations

from typing import Final

WEIGHTS: Final = (1.32, 0.42, 1.66, 0.67, 1.15, 0.48, 0.21)
"""One for each of ``evidence.TERMS``, in the same order; none is negative."""
INTERCEPT: Final = -1.09
