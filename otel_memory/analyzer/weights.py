"""What each piece of evidence weighs. Written by ``python -m tests.benchmarks.bench_judgement --fit``; not by hand."""

from __future__ import annotations

from typing import Final

WEIGHTS: Final = (1.3, 0.47, 1.68, 0.62, 1.23, 0.28, 0.2)
"""One for each of ``evidence.TERMS``, in the same order; none is negative."""
INTERCEPT: Final = -1.06
