"""`otel-memory explain`: which process is meant, and its story in plain words."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from otel_memory.clients import explain
from otel_memory.clients.api_client import ApiClient, ClientError
from otel_memory.clients.lookup import find_process
from otel_memory.clients.replies import read_process, read_series
from otel_memory.clients.terminal import Terminal, local_moment
from otel_memory.humanize import format_rate
from tests.clients.documents import HOSTILE, SERIES, Fake, detail, healthy, process, serve

RATE = format_rate(412_000.0)
NOW = datetime(2026, 11, 21, 10, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_MEMORY_URL", "OTEL_MEMORY_TOKEN", "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def told(document: dict[str, Any], series: dict[str, Any] | None = None, now: datetime = NOW) -> str:
    """The story in a pipe."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    terminal = Terminal(out)
    read = None if series is None else read_series(series)
    terminal.show(*explain.story(read_process(document), read, terminal, now))
    return out.buffer.getvalue().decode()  # type: ignore[attr-defined]


# --- which process --------------------------------------------------------------------------------------------

WORKERS = [
    detail(id="aaaa000000000001", service_instance_id="one", pid=1),
    detail(id="aaaa000000000002", service_instance_id="two", pid=2),
    healthy(id="bbbb000000000003", service_name="mail", events=[]),
    healthy(id="cccc000000000004", service_name="aaaa", events=[]),
    healthy(id="dddd000000000005", service_name="a/b ?#%", events=[]),
    healthy(id="eeee000000000006", service_name="..", events=[]),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("aaaa000000000002", "aaaa000000000002"),
        ("bbbb", "bbbb000000000003"),
        ("mail", "bbbb000000000003"),
        (" mail ", "bbbb000000000003"),
        ("two", "aaaa000000000002"),
        ("aaaa", "cccc000000000004"),
        ("a/b ?#%", "dddd000000000005"),
        ("..", "eeee000000000006"),
    ],
)
def test_an_id_its_beginning_a_service_or_an_instance_names_a_process(wanted: str, found: str) -> None:
    """A service that is called so comes before ids that begin so."""
    with serve(Fake(WORKERS)) as url, ApiClient(url) as client:
        assert find_process(client, wanted)["id"] == found


@pytest.mark.parametrize(
    ("wanted", "words"),
    [("nobody", "no process is called 'nobody'"), ("", "which process?"), ("  ", "which process?")],
)
def test_what_names_no_process_leads_to_the_list(wanted: str, words: str) -> None:
    with serve(Fake(WORKERS)) as url, ApiClient(url) as client, pytest.raises(ClientError) as caught:
        find_process(client, wanted)
    assert words in str(caught.value)
    assert "otel-memory leaks --all" in str(caught.value)


def test_what_names_several_lists_them_with_what_tells_them_apart() -> None:
    with serve(Fake(WORKERS)) as url, ApiClient(url) as client, pytest.raises(ClientError) as caught:
        find_process(client, "shop")
    lines = str(caught.value).splitlines()
    assert lines[0] == "'shop' could be 2 processes; name one by its id:"
    assert lines[1] == "  aaaa000000000001  leaking   shop  web-1 pid 1 one"
    assert len(lines) == 3


def test_a_choice_of_many_is_bounded() -> None:
    many = [process(id=f"{number:016x}") for number in range(50)]
    with serve(Fake(many)) as url, ApiClient(url) as client, pytest.raises(ClientError) as caught:
        find_process(client, "shop")
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert "and 30 more" in lines[-1]


def test_a_process_that_goes_while_it_is_looked_up_is_told_from_the_list() -> None:
    fake = Fake([healthy()])
    fake.instead["/api/v1/processes/fedcba9876543210"] = (404, {})
    with serve(fake) as url, ApiClient(url) as client:
        assert find_process(client, "mail")["service_name"] == "mail"


# --- the verb -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "status"), [("leaking", 1), ("watch", 1), ("healthy", 0), ("unknown", 0), ("of a later version", 0)]
)
def test_the_status_is_the_verdict(verdict: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(Fake([detail(verdict=verdict)])) as url:
        assert explain.main(["shop", "--url", url]) == status
        assert explain.main(["shop", "--url", url, "--json"]) == status
    assert verdict in capsys.readouterr().out


def test_what_can_not_be_asked_could_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(Fake()) as url:
        assert explain.main(["nobody", "--url", url]) == 2
    assert explain.main(["shop", "--url", "http://127.0.0.1:1"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("otel-memory explain: ") == 2


def test_json_is_the_process_as_the_analyzer_tells_it(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(Fake([detail(service_name=HOSTILE)])) as url:
        assert explain.main(["0123", "--url", url, "--json"]) == 1
    out = capsys.readouterr().out
    assert json.loads(out) == detail(service_name=HOSTILE)
    assert out.isascii()
    assert "\x1b" not in out


def test_a_series_that_makes_no_sense_could_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake([detail()])
    fake.instead["/api/v1/processes/0123456789abcdef/series"] = (200, {"times": ["x"], "values": [1]})
    with serve(fake) as url:
        assert explain.main(["shop", "--url", url]) == 2
    assert capsys.readouterr().out == ""


def test_without_a_series_the_story_has_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake([detail()])
    fake.instead["/api/v1/processes/0123456789abcdef/series"] = (404, {})
    with serve(fake) as url:
        assert explain.main(["shop", "--url", url]) == 1
    out = capsys.readouterr().out
    assert "█" not in out
    assert "What grows" in out


# --- the story ------------------------------------------------------------------------------------------------


def test_a_leak_is_told_with_rate_limit_time_culprit_and_next_step() -> None:
    text = told(detail(), SERIES)
    assert text.splitlines()[:2] == [
        "shop  leaking  0123456789abcdef",
        "version 1.2, host web-1, pid 4711, CPython 3.12.4, instance instance-1",
    ]
    assert (
        f"It uses 130 MB, 24 % of its limit of 512 MiB (set by its container). It leaks {RATE} since 09:30:00, and "
        "reaches the limit in about 16 min (13 min to 20 min)."
    ) in text
    assert f"1. route GET /cart/{{customer}}  {format_rate(383_000.0)}, 93 % of the growth, confidence 80 %" in text
    assert "41 calls/s kept 9.3 kB each" in text
    assert "- memory rises since 09:30 and never falls back" in text
    assert "- 09:45:00  process.memory.usage grew 20 % in 600 s" in text
    assert (
        "1. The cache of shop.users.profile took 900 more entries (high)\n   Give the cache a bound.\n"
        "   Up to 25 MB/min less growth.\n   docs/suggestions.md#unbounded-cache"
    ) in text
    assert "09:00:00 to 09:29:00, 100 MB to 129 MB" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"verdict": "unknown"}, "There is too little to judge it by yet."),
        ({"verdict": "healthy"}, "Nothing in it points to a leak."),
        ({"verdict": "watch"}, f"It may leak {RATE} since 09:30:00"),
        ({"memory_bytes": None}, "Its memory is not known."),
        ({"limit_bytes": None, "limit_kind": None}, "It uses 130 MB; its limit is not known."),
        ({"limit_kind": "host"}, "(all of the host's memory)"),
        ({"limit_kind": "of a later version"}, "of its limit of 512 MiB."),
        ({"growth_bytes_per_second": None}, "It leaks since 09:30:00"),
        ({"leaking_since": None}, f"It leaks {RATE}, and reaches"),
        ({"time_to_limit_seconds": None}, "When that meets a limit can't be told."),
        ({"time_to_limit_seconds": {"estimate": 960, "low": 800, "high": None}}, "(13 min or longer)"),
        ({"last_seen": "2026-11-21T09:00:00Z"}, "It was last heard of 1 h 1 min ago."),
    ],
)
def test_what_is_not_known_is_said_or_left_out(change: dict[str, Any], words: str) -> None:
    text = told(detail(**change))
    assert words in text
    assert "None" not in text


def test_a_process_that_spoke_lately_is_not_called_silent() -> None:
    assert "last heard of" not in told(detail())


def test_a_healthy_process_gets_no_advice() -> None:
    text = told(healthy())
    assert "What to do" not in text
    assert "Why" not in text


def test_only_the_newest_events_are_told() -> None:
    events = [{"name": f"event {n}", "time": "2026-11-21T09:45:00Z", "body": None} for n in range(20)]
    text = told(detail(events=events))
    assert "event 4" in text
    assert "event 5" not in text


def test_what_the_process_found_and_consists_of_is_told() -> None:
    found = {
        "summary": "Python memory grows 1.2 MB/s.",
        "site": ["shop/cart.py:41 add"],
        "holder": ["shop.cart.CACHE"],
        "note": ["threads grew from 3 to 9"],
    }
    text = told(
        detail(evidence=[found, {"summary": "older"}], breakdown={"file": 10**6, "python_used": 3 * 10**7, "x": 0})
    )
    assert "Python memory grows 1.2 MB/s." in text
    assert "allocated at: shop/cart.py:41 add" in text
    assert "held by: shop.cart.CACHE" in text
    assert "- threads grew from 3 to 9" in text
    assert "older" not in text
    lines = [line.split() for line in text.splitlines()]
    assert ["Python", "objects", "30.0", "MB", "97%"] in lines
    assert lines.index(["Python", "objects", "30.0", "MB", "97%"]) < lines.index(["files", "1.0", "MB", "3%"])


def test_a_hostile_process_is_shown_and_does_nothing() -> None:
    names = ("service_name", "service_version", "service_instance_id", "host_name", "runtime", "verdict")
    text = told(
        detail(
            **dict.fromkeys(names, HOSTILE),
            reasons=[HOSTILE],
            suspects=[{"kind": "route", "name": HOSTILE, "evidence": HOSTILE}],
            events=[{"name": "x", "time": "2026-11-21T09:45:00Z", "body": HOSTILE}],
            evidence=[
                {"summary": HOSTILE, "site": [HOSTILE], "holder": [HOSTILE], "type": [HOSTILE], "note": [HOSTILE]}
            ],
            breakdown={HOSTILE: 5},
            suggestions=[dict.fromkeys(("severity", "message", "recommendation", "expected_effect", "link"), HOSTILE)],
        )
    )
    assert not set(text) & {"\x1b", "\x07", "\u202e", "\x9b"}
    assert not any(line.startswith("mend:") for line in text.splitlines())


# --- times ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        (datetime(2026, 11, 21, 9, 30, tzinfo=UTC), "10:30:00"),
        (datetime(2026, 11, 20, 22, 59, tzinfo=UTC), "2026-11-20 23:59:00 CET"),
        (datetime(2026, 11, 20, 23, 30, tzinfo=UTC), "00:30:00"),
        (datetime(2026, 7, 1, 12, 0, tzinfo=UTC), "2026-07-01 14:00:00 CEST"),
    ],
)
def test_times_are_told_in_the_readers_zone_with_the_date_where_it_is_another_day(moment: datetime, words: str) -> None:
    assert local_moment(moment, NOW.astimezone(ZoneInfo("Europe/Berlin"))) == words


def test_the_whole_story_is_in_one_zone() -> None:
    text = told(detail(), SERIES, NOW.astimezone(ZoneInfo("Asia/Kolkata")))
    assert "since 15:00:00" in text
    assert "14:30:00 to 14:59:00" in text
    assert "- 15:15:00  process.memory.usage" in text


def test_a_leak_since_days_ago_has_its_date() -> None:
    text = told(detail(), now=NOW + timedelta(days=3))
    assert "since 2026-11-21 09:30:00 UTC" in text
    assert "last heard of 3 days ago" in text
