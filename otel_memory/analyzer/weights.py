"""What each piece of evidence weighs. Written by ``python -m tests.benchmarks.bench_judgement --fit``; not by hand."""

from __future__ import annotations

from typing import Final

WEIGHTS: Final = (0.99, 0.37, 1.63, 0.38, 0.88, 0.37, 0.47)
"""One for each of ``evidence.TERMS``, in the same order; none is negative."""
INTERCEPT: Final = -0.96
