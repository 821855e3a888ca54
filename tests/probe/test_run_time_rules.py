"""Rules that come and go while the probe runs, also in a forked worker."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from otel_memory import MemoryInstrumentor, Rule, add_rule, names, remove_rule
from otel_memory.probe.lifecycle import running_probe
from otel_memory.probe.rules import MAX_RULES
from otel_memory.probe.thresholds import BUILT_IN


@pytest.fixture
def probe() -> Iterator[None]:
    MemoryInstrumentor().instrument(interval="60s", events="none", thresholds="none")
    yield
    MemoryInstrumentor().uninstrument()


def judged() -> list[str]:
    probe = running_probe()
    assert probe is not None
    assert probe._sampler is not None
    return [rule.name for rule in probe._sampler.rules]


def test_without_a_probe_nothing_is_added_and_nothing_raised() -> None:
    assert not add_rule("rss>1MB")
    assert not remove_rule("rss>1MB")


def test_a_rule_is_added_replaced_and_removed(probe: None) -> None:
    assert add_rule("big=rss>1GiB")
    assert add_rule(Rule("more", names.PROCESS_THREAD_COUNT, "greater_than", 5))
    assert add_rule("big=rss>2GiB")
    assert judged() == ["more", "big"]
    assert remove_rule("more")
    assert not remove_rule("more")
    assert judged() == ["big"]


@pytest.mark.parametrize("wrong", ["rss>lots", "rss>1MB;fds>9", "", 7])
def test_what_is_no_rule_is_refused_and_changes_nothing(probe: None, wrong: object) -> None:
    with pytest.raises(ValueError):
        add_rule(wrong)  # type: ignore[arg-type]
    assert judged() == []


def test_rules_stay_bounded(probe: None) -> None:
    for number in range(MAX_RULES):
        assert add_rule(f"fds>{number + 1}")
    with pytest.raises(ValueError, match="at most 64"):
        add_rule("threads>1")
    assert add_rule("fds>1"), "one that is there already may be put in its own place"
    assert len(judged()) == MAX_RULES


def test_added_rules_are_gone_with_the_probe() -> None:
    for _ in range(2):
        MemoryInstrumentor().instrument(interval="60s", events="none")
        assert judged() == [rule.name for rule in BUILT_IN]
        add_rule("rss>1MB")
        MemoryInstrumentor().uninstrument()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_worker_goes_on_with_its_parents_rules_and_has_its_own(probe: None) -> None:
    add_rule("big=rss>1GiB")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            add_rule("more=fds>9")
            os.write(write, ",".join(judged()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        assert told.read() == b"big,more"
    os.waitpid(pid, 0)
    assert judged() == ["big"]
