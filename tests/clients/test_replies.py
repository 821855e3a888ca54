"""Answers become typed values, or an error that says which field is wrong; text is harmless from then on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_memory.analyzer.api_schemas import ProcessDetail, ProcessModel
from otel_memory.analyzer.model import Assessment, Event, ProcessInfo, Suspect, TimeToLimit, Trend, Verdict
from otel_memory.clients.api_client import ClientError
from otel_memory.clients.replies import read_process, read_series
from otel_memory.humanize import printable
from tests.clients.documents import HOSTILE, SERIES, detail, healthy, process


def test_every_field_of_the_analyzers_own_model_is_read() -> None:
    """Both sides of the contract, held together."""
    when = datetime(2026, 11, 21, 10, tzinfo=UTC).timestamp()
    assessment = Assessment(
        process=ProcessInfo("0123456789abcdef", "shop", "1.2", "instance-1", "web-1", 4711, "CPython 3.12.4"),
        first_seen=when - 60,
        last_seen=when,
        memory_bytes=130_000_000,
        limit_bytes=536_870_912,
        limit_kind="cgroup_v2",
        verdict=Verdict.LEAKING,
        leak_score=0.97,
        trend=Trend.INCREASING,
        growth_bytes_per_second=412e3,
        time_to_limit=TimeToLimit(960.0, 800.0, None),
        reasons=("it rises",),
        suspects=(Suspect("route", "GET /cart", 383e3, 0.93, 0.8, "41 calls/s"),),
        leaking_since=when - 30,
    )
    event = Event("otel_memory.threshold.crossed", when, 13, {"a": 1}, "grew")
    read = read_process(ProcessDetail.build(assessment, [event]).model_dump(mode="json"))
    assert (read.id, read.service, read.version, read.instance) == ("0123456789abcdef", "shop", "1.2", "instance-1")
    assert (read.host, read.pid, read.runtime) == ("web-1", 4711, "CPython 3.12.4")
    assert read.last_seen is not None
    assert read.last_seen.timestamp() == when
    assert (read.memory, read.limit, read.limit_kind) == (130e6, 536_870_912, "cgroup_v2")
    assert (read.verdict, read.score, read.growth) == ("leaking", 0.97, 412e3)
    assert read.reach is not None
    assert (read.reach.estimate, read.reach.low, read.reach.high) == (960.0, 800.0, None)
    assert read.leaking_since is not None
    assert read.leaking_since.timestamp() == when - 30
    assert read.reasons == ("it rises",)
    (suspect,) = read.suspects
    assert (suspect.kind, suspect.name, suspect.growth) == ("route", "GET /cart", 383e3)
    assert (suspect.share, suspect.confidence, suspect.evidence) == (0.93, 0.8, "41 calls/s")
    (advice,) = read.suggestions
    assert (advice.severity, advice.message, advice.link) == (
        "high",
        "41 calls/s",
        "docs/suggestions.md#per-request",
    )
    assert advice.recommendation
    assert advice.effect
    (told,) = read.events
    assert (told.name, told.time.timestamp(), told.body) == ("otel_memory.threshold.crossed", when, "grew")


def test_the_documents_of_these_tests_are_as_the_analyzer_makes_them() -> None:
    assert process().keys() == healthy().keys() == ProcessModel.model_fields.keys()
    assert detail().keys() == ProcessDetail.model_fields.keys()


def test_what_is_not_known_is_none() -> None:
    read = read_process(healthy(memory_bytes=None, leak_score=None))
    assert (read.memory, read.limit, read.score, read.growth, read.reach, read.leaking_since) == (None,) * 6
    assert (read.pid, read.host, read.suspects, read.events) == (None, None, (), ())


def test_a_field_of_a_later_version_is_no_matter() -> None:
    assert read_process(process(something_new={"a": 1})).service == "shop"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"id": None}, "id"),
        ({"id": 7}, "id"),
        ({"service_name": None}, "service_name"),
        ({"verdict": []}, "verdict"),
        ({"pid": "4711"}, "pid"),
        ({"memory_bytes": "many"}, "memory_bytes"),
        ({"memory_bytes": True}, "memory_bytes"),
        ({"memory_bytes": 10**400}, "memory_bytes"),
        ({"leak_score": float("nan")}, "leak_score"),
        ({"last_seen": "yesterday"}, "last_seen"),
        ({"last_seen": 12}, "last_seen"),
        ({"leaking_since": "0001-01-01T00:00:00+14:00"}, "leaking_since"),
        ({"time_to_limit_seconds": 900}, "an object"),
        ({"time_to_limit_seconds": {"estimate": 1}}, "low"),
        ({"reasons": "none"}, "reasons"),
        ({"reasons": [1]}, "reasons"),
        ({"suspects": ["x"]}, "an object"),
        ({"suspects": [{"kind": "route"}]}, "name"),
        ({"events": [{"name": "x"}]}, "time"),
        ({"suggestions": [{"severity": "high"}]}, "message"),
    ],
)
def test_a_field_that_is_wrong_is_named(change: dict[str, Any], name: str) -> None:
    with pytest.raises(ClientError, match=f"{name} is"):
        read_process(process(**change))


@pytest.mark.parametrize(
    "document",
    [
        {"times": [], "values": [1]},
        {"times": ["x"], "values": [1]},
        {"times": ["2026-11-21T09:00:00Z"], "values": ["x"]},
        {"times": 1, "values": []},
    ],
)
def test_a_series_that_is_wrong_is_an_error(document: dict[str, Any]) -> None:
    with pytest.raises(ClientError):
        read_series(document)


def test_a_series_keeps_its_gaps() -> None:
    series = read_series(SERIES)
    assert len(series.times) == len(series.values) == 30
    assert series.values[15] is None


def test_no_text_from_outside_can_steer_a_terminal() -> None:
    names = ("id", "service_name", "service_version", "service_instance_id", "host_name", "runtime", "verdict")
    read = read_process(
        detail(
            **dict.fromkeys(names, HOSTILE),
            limit_kind=HOSTILE,
            reasons=[HOSTILE],
            suspects=[{"kind": HOSTILE, "name": HOSTILE, "evidence": HOSTILE}],
            events=[{"name": HOSTILE, "time": "2026-11-21T09:45:00Z", "body": HOSTILE}],
        )
    )
    assert "\x1b" not in repr(read).replace("\\x1b", "")
    for text in (
        read.id,
        read.service,
        read.limit_kind,
        read.reasons[0],
        read.suspects[0].evidence,
        read.events[0].body,
    ):
        assert text is not None
        assert text.isprintable()
        assert "\\x1b]0;owned" in text


@given(st.text())
def test_printable_text_is_visible_and_visible_text_stays(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(detail())), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_whatever_an_answer_holds_is_read_or_refused(value: Any) -> None:
    """No answer ends in a traceback."""
    for document in (value, *(detail(**{name: value}) for name in detail())):
        try:
            read_process(document)
        except ClientError:
            pass
