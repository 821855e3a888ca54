"""Kills, joins and leaves at random moments change nothing of what a group of analyzers tells.

The full run is ``OTEL_MEMORY_KAFKA_KILLS=20``, or ``python -m tests.integration.kafka_chaos``.
"""

from __future__ import annotations

import os

import pytest

from tests.integration import kafka_chaos

KILLS = int(os.environ.get("OTEL_MEMORY_KAFKA_KILLS", "4"))
SEED = int(os.environ.get("OTEL_MEMORY_KAFKA_SEED", "11"))


@pytest.mark.needs("kafka")
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kills_at_random_moments_lose_nothing_and_tell_nothing_twice() -> None:
    report = kafka_chaos.run(KILLS, SEED)
    assert report.kills >= KILLS
    assert report.joins >= 1
