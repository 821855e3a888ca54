"""Sessions of the real curl_cffi: open, closed, leaked; and no trace of the hooks afterwards."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from otel_memory.probe.background import Background
from otel_memory.probe.config import Settings
from otel_memory.probe.curl_sessions import MAX_SESSIONS, CurlSessions, Sessions
from otel_memory.probe.feature import Surroundings
from otel_memory.probe.ledger import Ledger
from otel_memory.probe.parts import Parts

requests = pytest.importorskip("curl_cffi.requests", reason="the development environment brings curl_cffi")


def make() -> CurlSessions:
    settings, ledger = Settings.load({}), Ledger()
    return CurlSessions(Surroundings(settings, Parts(settings, ledger), lambda *_: False, Background(ledger), ledger))


@pytest.fixture
def watching() -> Iterator[CurlSessions]:
    feature = make()
    yield feature
    feature.close()


def found(feature: CurlSessions) -> dict[str, int]:
    gc.collect()
    feature.tick(0.0)
    return {name.removeprefix("curl_cffi."): number for name, number in feature.status().items() if number}


def test_sessions_are_open_then_closed_then_gone(watching: CurlSessions) -> None:
    session = requests.Session()
    assert found(watching) == {"Session.open": 1}
    session.close()
    session.close()
    assert found(watching) == {"Session.closed": 1}
    del session
    assert found(watching) == {}
    with requests.Session():
        assert found(watching) == {"Session.open": 1}
    assert found(watching) == {}


def test_one_that_is_let_go_without_a_close_has_leaked(watching: CurlSessions) -> None:
    requests.Session()
    cycle = [requests.Session()]
    cycle.append(cycle)  # type: ignore[arg-type]
    del cycle
    assert found(watching) == {"Session.leaked": 2}


def test_asynchronous_sessions_too(watching: CurlSessions) -> None:
    held = []

    async def use() -> None:
        async with requests.AsyncSession():
            assert found(watching) == {"AsyncSession.open": 1}
        held.append(requests.AsyncSession())
        requests.AsyncSession()
        closed = requests.AsyncSession()
        await closed.close()
        assert found(watching) == {"AsyncSession.open": 1, "AsyncSession.closed": 1, "AsyncSession.leaked": 1}

    asyncio.run(use())
    assert found(watching) == {"AsyncSession.open": 1, "AsyncSession.leaked": 1}


def test_a_close_that_is_cut_short_is_none(watching: CurlSessions) -> None:
    class Stuck(requests.Session):
        @property
        def curl(self) -> object:
            raise RuntimeError("no handle")

    session = Stuck()
    with pytest.raises(RuntimeError, match="no handle"):
        session.close()
    assert found(watching) == {"Session.open": 1}


def test_a_session_that_could_not_be_made_is_none(watching: CurlSessions) -> None:
    with pytest.raises(TypeError):
        requests.Session(response_class=int)
    assert found(watching) == {}


def test_a_request_through_the_modules_own_functions_leaves_nothing(watching: CurlSessions) -> None:
    with pytest.raises(requests.exceptions.RequestException):
        requests.get("http://127.0.0.1:9/", timeout=5)
    assert found(watching) == {}


def test_closing_puts_the_originals_back_and_a_fork_starts_the_leaks_anew() -> None:
    before = [vars(cls)[name] for cls in (requests.Session, requests.AsyncSession) for name in ("__init__", "close")]
    feature = make()
    requests.Session()
    assert found(feature) == {"Session.leaked": 1}
    feature.after_fork()
    assert found(feature) == {}
    held = requests.Session()
    feature.close()
    feature.close()
    after = [vars(cls)[name] for cls in (requests.Session, requests.AsyncSession) for name in ("__init__", "close")]
    assert all(one is other for one, other in zip(before, after, strict=True))
    held.close()
    assert feature.status() == {}


def test_what_somebody_hooked_in_after_us_stays_and_works() -> None:
    feature = make()
    ours = requests.Session.close

    def close(self: object) -> None:
        ours(self)

    requests.Session.close = close
    try:
        feature.close()
        assert requests.Session.close is close
        requests.Session().close()
    finally:
        requests.Session.close = ours.__wrapped__


def test_past_the_bound_sessions_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_SESSIONS == 100_000
    monkeypatch.setattr("otel_memory.probe.curl_sessions.MAX_SESSIONS", 1)
    sessions = Sessions()
    held = [type("Session", (), {})() for _ in range(2)]
    for session in held:
        sessions.add(session, "Session")
    assert sessions.dropped == 1
    assert sessions.count()["Session", False] == 1
