"""Silences: which alerts they are for, from when to when, over a restart, and in REST."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message

from otel_memory.analyzer.api import ApiSettings, build_api
from otel_memory.analyzer.api_body import MAX_BYTES, BodyLimit
from otel_memory.analyzer.matching import BadSilence, Matcher, Silence, check, labels_of
from otel_memory.analyzer.silences import KEPT_SECONDS, MAX_SILENCES, NotShared, Silences
from otel_memory.analyzer.stats import Stats
from otel_memory.analyzer.store import FILE_NAME, Reader, Store
from otel_memory.analyzer.view import View
from tests.analyzer.store_samples import alert
from tests.harness import wait_until

T0 = 1_000_000.0
SHOP = Matcher("service_name", "shop")


class Clock:
    def __init__(self, now: float = T0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    store = Store.open(tmp_path / FILE_NAME)
    yield store.path
    store.close()


# --- which alerts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matcher", "labels", "agrees"),
    [
        (Matcher("service_name", "shop"), {"service_name": "shop"}, True),
        (Matcher("service_name", "shop"), {"service_name": "shop2"}, False),
        (Matcher("service_name", "shop", is_equal=False), {"service_name": "cart"}, True),
        (Matcher("service_name", "shop", is_equal=False), {}, True),
        (Matcher("service_name", ""), {}, True),
        (Matcher("service_name", "sho.", is_regex=True), {"service_name": "shop"}, True),
        (Matcher("service_name", "sho", is_regex=True), {"service_name": "shop"}, False),
        (Matcher("service_name", "shop|cart", is_regex=True), {"service_name": "cart"}, True),
        (Matcher("service_name", "a.*", is_regex=True, is_equal=False), {"service_name": "b"}, True),
        (Matcher("service_name", ".*", is_regex=True), {"service_name": "two\nlines"}, True),
    ],
)
def test_a_matcher_goes_by_alertmanagers_rules(matcher: Matcher, labels: dict[str, str], agrees: bool) -> None:
    assert matcher.agrees(labels) is agrees


def silence(*matchers: Matcher, starts_at: float = T0, ends_at: float = T0 + 60) -> Silence:
    return Silence("id", matchers, starts_at, ends_at, T0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (silence(SHOP, ends_at=T0), "ends_at must be later than starts_at"),
        (silence(Matcher("a", "(", is_regex=True)), "matcher a: no regular expression"),
        (silence(Matcher("a", "(x+)+y", is_regex=True)), "may take for ever"),
        (silence(Matcher("a", r"(x)\1", is_regex=True)), "may take for ever"),
        (silence(Matcher("a", "x" * 300, is_regex=True)), "at most 256 characters"),
        (silence(Matcher("a", ".*", is_regex=True)), "at least one matcher must not agree with everything"),
        (silence(Matcher("a", "x", is_equal=False)), "at least one matcher must not agree with everything"),
        (silence(), "at least one matcher must not agree with everything"),
    ],
)
def test_what_can_not_be_meant_as_a_silence_is_refused(given: Silence, says: str) -> None:
    with pytest.raises(BadSilence, match=says):
        check(given)


def test_matchers_see_the_names_that_every_alert_has() -> None:
    one = alert()
    seen = labels_of(replace(one, labels={"alertname": "forged", "x": "y"}))
    assert seen == {
        "alertname": one.name,
        "severity": one.severity,
        "process_id": one.process,
        "alert_id": one.id,
        "x": "y",
    }


# --- from when to when -------------------------------------------------------------------------------------


def test_a_silence_is_in_force_from_its_start_to_its_end(path: Path) -> None:
    clock = Clock()
    silences = Silences(path, clock=clock)
    one = replace(alert(), labels={"service_name": "shop"})
    made = silences.add([SHOP], starts_at=T0 + 10, ends_at=T0 + 20)
    in_force = []
    for now in (T0, T0 + 9.9, T0 + 10, T0 + 19.9, T0 + 20):
        clock.now = now
        in_force.append(silences.silencing(one) == (made.id,))
    assert in_force == [False, False, True, True, False]
    silences.stop()


def test_listeners_are_told_when_a_silence_begins_and_ends_by_itself() -> None:
    silences = Silences()
    told: list[tuple[str, ...]] = []
    one = replace(alert(), labels={"service_name": "shop"})
    silences.listen(lambda: told.append(silences.silencing(one)))
    silences.start()
    now = time.time()
    made = silences.add([SHOP], starts_at=now + 0.2, ends_at=now + 0.6)
    assert wait_until(lambda: told if told.count(()) >= 2 and (made.id,) in told else None)
    assert told[0] == (), "made, and not yet in force"
    assert told[-1] == (), "over"
    silences.stop()


def test_silences_are_there_after_a_restart_and_old_ones_are_forgotten(path: Path) -> None:
    clock = Clock()
    first = Silences(path, clock=clock)
    short = first.add([SHOP], ends_at=T0 + 60, created_by="ann", comment="deploy")
    long = first.add([Matcher("severity", "warn.*", is_regex=True, is_equal=False), SHOP], ends_at=T0 + 10 * 86400)
    # Killed: nothing was closed.
    again = Silences(path, clock=clock)
    assert again.all() == [long, short]
    clock.now = T0 + 61 + KEPT_SECONDS
    assert Silences(path, clock=clock).all() == [long]
    first.stop()
    again.stop()


def test_ending_is_kept_and_done_once(path: Path) -> None:
    clock = Clock()
    silences = Silences(path, clock=clock)
    made = silences.add([SHOP], ends_at=T0 + 60)
    version = silences.version
    clock.now = T0 + 5
    ended = silences.end(made.id)
    assert ended is not None
    assert ended.ends_at == T0 + 5
    clock.now = T0 + 6
    assert silences.end(made.id) == ended
    assert silences.end("nobody") is None
    assert silences.version == version + 1
    assert Silences(path, clock=clock).all() == [ended]
    coming = silences.add([SHOP], starts_at=T0 + 100, ends_at=T0 + 200)
    over = silences.end(coming.id)
    assert over is not None
    assert (over.starts_at, over.ends_at) == (T0 + 6, T0 + 6)
    silences.stop()


def test_there_is_a_bound() -> None:
    silences = Silences(clock=Clock())
    for _ in range(MAX_SILENCES):
        silences.add([SHOP], ends_at=T0 + 60)
    with pytest.raises(BadSilence, match="end some"):
        silences.add([SHOP], ends_at=T0 + 60)


def test_one_that_is_over_already_is_refused() -> None:
    with pytest.raises(BadSilence, match="has passed"):
        Silences(clock=Clock()).add([SHOP], starts_at=T0 - 60, ends_at=T0 - 30)


# --- in REST -----------------------------------------------------------------------------------------------


def test_what_others_are_told_and_tell(path: Path) -> None:
    clock = Clock()
    silences = Silences(path, clock=clock)
    told: list[Silence] = []
    silences.share_by(told.append)
    own = silences.add([SHOP], ends_at=T0 + 60)
    assert told == [own]
    other = replace(own, id="f" * 16)
    version = silences.version
    silences.take(other)
    silences.take(other)
    assert silences.version == version + 1
    assert {one.id for one in silences.all()} == {own.id, other.id}
    silences.take(replace(other, id="e" * 16, ends_at=T0 - KEPT_SECONDS - 1))
    assert len(silences.all()) == 2
    ended = silences.end(other.id)
    assert told[-1] == ended
    assert len(told) == 2
    silences.stop()
    again = Silences(path, clock=clock)
    assert {one.id for one in again.all()} == {own.id, other.id}
    again.stop()


class Rest:
    def __init__(self, path: Path, **settings: Any) -> None:
        self.silences = Silences(path)
        self.view = View()
        self.reader = Reader(path)
        self.app = build_api(self.view, self.reader, Stats(), ApiSettings(**settings), silences=self.silences)

    def __call__(self, method: str, url: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8431") as client:
                return await client.request(method, url, **options)

        return asyncio.run(ask())


@pytest.fixture
def rest(path: Path) -> Iterator[Rest]:
    made = Rest(path)
    yield made
    made.silences.stop()
    made.reader.close()


FORM = {"matchers": [{"name": "service_name", "value": "shop"}], "duration_seconds": 600}
URL = "/api/v1/silences"


def test_a_silence_is_made_listed_shown_with_its_alerts_and_ended(rest: Rest) -> None:
    rest.view.publish((), [replace(alert(), labels={"service_name": "shop"})])
    answer = rest("POST", URL, json={**FORM, "comment": "deploy", "created_by": "ann"})
    assert answer.status_code == 201
    made = answer.json()
    assert set(made) == {
        "id", "state", "matchers", "starts_at", "ends_at", "created_at", "created_by", "comment",
    }  # fmt: skip
    assert (made["state"], made["comment"], made["created_by"]) == ("active", "deploy", "ann")
    assert made["matchers"] == [{"name": "service_name", "value": "shop", "is_regex": False, "is_equal": True}]
    lasts = datetime.fromisoformat(made["ends_at"]) - datetime.fromisoformat(made["starts_at"])
    assert lasts.total_seconds() == pytest.approx(600)
    assert rest("GET", URL).json() == {"items": [made]}
    assert rest("GET", f"{URL}?state=coming").json() == {"items": []}
    (shown,) = rest("GET", "/api/v1/alerts").json()["items"]
    assert shown["silenced_by"] == [made["id"]]
    ended = rest("DELETE", f"{URL}/{made['id']}")
    assert (ended.status_code, ended.json()["state"]) == (200, "over")
    assert rest("GET", "/api/v1/alerts").json()["items"][0]["silenced_by"] == []
    assert [item["id"] for item in rest("GET", f"{URL}?state=over").json()["items"]] == [made["id"]]
    gone = rest("DELETE", f"{URL}/nobody")
    assert (gone.status_code, gone.json()["detail"]) == (404, "no silence 'nobody'")


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({**FORM, "duration_seconds": None}, "give either ends_at or duration_seconds"),
        ({**FORM, "ends_at": "2099-01-01T00:00:00Z"}, "give either ends_at or duration_seconds"),
        ({**FORM, "duration_seconds": 0}, "duration_seconds: Input should be greater than 0"),
        ({**FORM, "duration_seconds": 1e12}, "duration_seconds: Input should be less than"),
        ({**FORM, "starts_at": "2098-01-01T00:00:00Z"}, "a year from now at the latest"),
        ({"matchers": FORM["matchers"], "ends_at": "2001-01-01T00:00:00Z"}, "ends_at must be later than starts_at"),
        ({"matchers": FORM["matchers"], "ends_at": "2001-01-01T00:00:00"}, "timezone"),
        ({**FORM, "matchers": []}, "matchers: List should have at least 1 item"),
        ({**FORM, "matchers": [{"name": "a", "value": ".*", "is_regex": True}]}, "must not agree with everything"),
        ({**FORM, "matchers": [{"name": "a", "value": "x", "regex": True}]}, "matchers.0.regex: no such parameter"),
        ({**FORM, "duration": 5}, "duration: no such parameter"),
        ([], "body"),
    ],
)
def test_a_bad_silence_is_refused_with_what_is_wrong(rest: Rest, form: object, says: str) -> None:
    answer = rest("POST", URL, json=form)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
    assert rest.silences.all() == []


def test_what_is_no_json_or_too_much_is_refused(rest: Rest) -> None:
    def parts() -> AsyncIterator[bytes]:
        async def stream() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b" " * (MAX_BYTES // 10)

        return stream()

    kind = {"content-type": "application/json"}
    assert rest("POST", URL, content=b"{", headers=kind).status_code in (400, 422)
    assert rest("POST", URL, content=b"[" * MAX_BYTES, headers=kind).status_code in (400, 422)
    assert rest("POST", URL, content=b" " * (MAX_BYTES + 1), headers=kind).status_code == 413
    assert rest("POST", URL, content=parts(), headers=kind).status_code == 413
    # What a plain form of another web page could send without asking first.
    assert rest("POST", URL, content=b"{}", headers={"content-type": "text/plain"}).status_code == 422
    documented = rest("GET", "/openapi.json").json()["paths"][URL]["post"]["responses"]
    assert {"201", "400", "401", "403", "408", "413", "422", "503"} <= set(documented)


def test_a_change_needs_the_token_and_no_other_web_page_may_make_it(path: Path) -> None:
    rest = Rest(path, token="correct horse")
    bearer = {"Authorization": "Bearer correct horse"}
    assert rest("POST", URL, json=FORM).status_code == 401
    assert rest("DELETE", f"{URL}/x").status_code == 401
    assert rest("GET", URL).status_code == 401
    for elsewhere in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert rest("POST", URL, json=FORM, headers={**bearer, **elsewhere}).status_code == 403
    assert rest("POST", URL, json=FORM, headers=bearer).status_code == 201
    rest.silences.stop()
    rest.reader.close()


def test_a_store_that_can_not_be_written_is_told_and_nothing_is_silenced(rest: Rest, path: Path) -> None:
    path.rename(path.with_suffix(".away"))
    answer = rest("POST", URL, json=FORM)
    path.with_suffix(".away").rename(path)
    assert answer.status_code == 503
    assert "store" in answer.json()["detail"]
    assert rest.silences.all() == []
    assert rest("POST", URL, json=FORM).status_code == 201


def test_a_body_that_does_not_come_is_not_waited_for_for_ever() -> None:
    async def app(*_: object) -> None:
        raise AssertionError("must not be called")

    sent: list[Message] = []

    async def run() -> None:
        async def send(message: Message) -> None:
            sent.append(message)

        async def never() -> Message:
            await asyncio.sleep(60)
            raise AssertionError

        inner: ASGIApp = app
        await BodyLimit(inner, max_seconds=0.05)({"type": "http", "method": "POST", "headers": []}, never, send)

    asyncio.run(run())
    assert sent[0]["status"] == 408


def test_where_the_others_can_not_be_told_nothing_is_silenced(rest: Rest) -> None:
    def fails(_silence: Silence) -> None:
        raise NotShared("the other analyzers can't be told through Kafka now: gone")

    made = rest("POST", URL, json=FORM).json()["id"]
    rest.silences.share_by(fails)
    for answer in (rest("POST", URL, json=FORM), rest("DELETE", f"{URL}/{made}")):
        assert answer.status_code == 503
        assert "Kafka" in answer.json()["detail"]
    assert [(one.id, one.active(time.time())) for one in rest.silences.all()] == [(made, True)]
