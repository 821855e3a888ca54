"""The event stream: coalescing, bounds, reconnection; and over a real server with a real connection."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from otel_memory.analyzer import sse
from otel_memory.analyzer.api import Api, build_api
from otel_memory.analyzer.sse import Broker, Subscription, TooManySubscribers
from otel_memory.analyzer.stats import Stats
from otel_memory.analyzer.store import Reader
from otel_memory.analyzer.view import View
from tests.analyzer.store_samples import alert, assessment, process


def parse(block: bytes) -> list[dict[str, str]]:
    """Events of a piece of a stream as field -> value; comments under the name ``comment``."""
    events = []
    for text in block.decode().split("\n\n"):
        if text:
            fields = (line.partition(": ") for line in text.split("\n"))
            events.append({name or "comment": value for name, _, value in fields})
    return events


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 10))


async def opened(broker: Broker, last_event_id: str | None = None) -> AsyncIterator[bytes]:
    """A stream past its greeting, so that it listens."""
    stream = broker.stream(broker.subscribe(), last_event_id)
    (greeting,) = parse(await anext(stream))
    assert greeting == {"comment": "otel-memory", "retry": "2000"}
    return stream


# --- one subscription --------------------------------------------------------------------------------------


def test_a_slow_consumer_gets_the_latest_of_each_process_once() -> None:
    async def scenario() -> None:
        subscription = Subscription(asyncio.get_running_loop())
        for number in range(1000):
            subscription.offer(number, [assessment(1, leak_score=number / 1000)], [])
        subscription.offer(1000, [assessment(2)], [alert()])
        batch = await subscription.next(1)
        assert batch is not None
        assert batch.items == [assessment(1, leak_score=0.999), assessment(2), alert()]
        assert batch.generation == 1000
        assert subscription.dropped == 0

    run(scenario())


def test_what_is_pending_is_bounded_and_what_waited_longest_is_dropped() -> None:
    async def scenario() -> None:
        subscription = Subscription(asyncio.get_running_loop(), max_pending=3)
        subscription.offer(1, [assessment(number) for number in range(5)], [])
        batch = await subscription.next(1)
        assert batch is not None
        assert batch.items == [assessment(2), assessment(3), assessment(4)]
        assert subscription.dropped == 2

    run(scenario())


def test_much_comes_in_batches_and_only_the_last_one_says_how_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_BATCH", 2)

    async def scenario() -> None:
        subscription = Subscription(asyncio.get_running_loop())
        subscription.offer(7, [assessment(number) for number in range(3)], [])
        first, second = await subscription.next(1), await subscription.next(1)
        assert first is not None
        assert second is not None
        assert (len(first.items), first.generation) == (2, None)
        assert (len(second.items), second.generation) == (1, 7)
        assert await subscription.next(0.001) is None

    run(scenario())


def test_a_worker_thread_wakes_the_consumer() -> None:
    async def scenario() -> None:
        subscription = Subscription(asyncio.get_running_loop())
        waiting = asyncio.create_task(subscription.next(10))
        await asyncio.sleep(0)
        worker = threading.Thread(target=subscription.offer, args=(1, [assessment()], []))
        worker.start()
        batch = await waiting
        worker.join()
        assert batch is not None
        assert batch.items == [assessment()]

    run(scenario())


def test_a_consumer_whose_loop_is_gone_does_not_disturb_the_worker() -> None:
    loop = asyncio.new_event_loop()
    subscription = Subscription(loop)
    loop.close()
    subscription.offer(1, [assessment()], [])
    assert subscription.closed


# --- the broker --------------------------------------------------------------------------------------------


def test_changes_come_as_events_with_the_rest_form() -> None:
    async def scenario() -> None:
        view = View()
        stream = await opened(Broker(view))
        view.publish([assessment()], [alert()])
        events = parse(await anext(stream))
        assert [event["event"] for event in events] == ["process", "alert"]
        body = json.loads(events[0]["data"])
        assert (body["id"], body["verdict"]) == (process().id, "leaking")
        assert body["first_seen"] == "2027-01-15T08:00:00Z"
        assert "id" not in events[0]
        assert events[1]["id"].endswith("-1")
        await stream.aclose()  # type: ignore[attr-defined]

    run(scenario())


def test_in_silence_a_comment_comes_at_each_heartbeat() -> None:
    async def scenario() -> None:
        stream = await opened(Broker(View(), heartbeat_seconds=0.01))
        assert [parse(await anext(stream)) for _ in range(2)] == [[{"comment": "still here"}]] * 2

    run(scenario())


def test_who_comes_back_gets_what_was_missed_and_nothing_else() -> None:
    async def scenario() -> None:
        view = View()
        broker = Broker(view)
        stream = await opened(broker)
        view.publish([assessment(1), assessment(2)])
        last = parse(await anext(stream))[-1]["id"]
        await stream.aclose()  # type: ignore[attr-defined]
        view.publish([assessment(2, leak_score=0.5)], [alert()])
        events = parse(await anext(await opened(broker, last)))
        assert [(event["event"], json.loads(event["data"])["id"]) for event in events] == [
            ("process", process(2).id),
            ("alert", "alert-1"),
        ]

    run(scenario())


@pytest.mark.parametrize("foreign", ["0badcafe-1", "nonsense", "", "-", "0badcafe-²"])
def test_who_comes_back_from_another_run_gets_everything(foreign: str) -> None:
    async def scenario() -> None:
        view = View()
        view.publish([assessment(1), assessment(2)])
        events = parse(await anext(await opened(Broker(view), foreign)))
        assert len(events) == 2

    run(scenario())


def test_what_was_missed_does_not_replace_what_is_newer() -> None:
    async def scenario() -> None:
        subscription = Subscription(asyncio.get_running_loop())
        subscription.offer(9, [assessment(1, leak_score=0.9)], [])
        subscription.prefill(8, [assessment(1, leak_score=0.8), assessment(2)], [])
        batch = await subscription.next(1)
        assert batch is not None
        assert batch.items == [assessment(1, leak_score=0.9), assessment(2)]
        assert batch.generation == 9

    run(scenario())


def test_closing_ends_every_stream_and_takes_no_more() -> None:
    async def scenario() -> None:
        broker = Broker(View(), heartbeat_seconds=60)
        streams = [await opened(broker) for _ in range(3)]
        broker.close()
        broker.close()
        for stream in streams:
            assert [block async for block in stream] == []
        with pytest.raises(TooManySubscribers):
            broker.subscribe()

    run(scenario())


def test_places_are_bounded_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_SUBSCRIBERS", 1)

    async def scenario() -> None:
        broker = Broker(View())
        subscription = broker.subscribe()
        subscription.dropped = 4
        with pytest.raises(TooManySubscribers):
            broker.subscribe()
        assert broker.dropped == 4
        broker.release(subscription)
        broker.release(subscription)
        broker.subscribe()
        assert (broker.subscribers, broker.dropped) == (1, 4)

    run(scenario())


# --- a real server -----------------------------------------------------------------------------------------


class Served:
    """The application in uvicorn on a free port, in a thread."""

    def __init__(self, app: Api) -> None:
        self.app = app
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=20)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))
        self._thread.start()

    def stop(self, within_seconds: float) -> bool:
        self.app.broker.close()
        self._server.should_exit = True
        self._thread.join(within_seconds)
        self._socket.close()
        return not self._thread.is_alive()


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
def served(view: View, tmp_path: Path) -> Iterator[Served]:
    made = Served(build_api(view, Reader(tmp_path / "none.db"), Stats(), heartbeat_seconds=0.2))
    yield made
    assert made.stop(20)


def until(lines: Iterator[str], wanted: str) -> str:
    return next(line for line in lines if line.startswith(wanted))


def test_over_a_real_connection_updates_and_heartbeats_arrive(served: Served, view: View) -> None:
    with httpx.Client(base_url=served.url, timeout=10) as client, client.stream("GET", "/api/v1/stream") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        lines = response.iter_lines()
        until(lines, "retry: 2000")
        view.publish([assessment()])
        until(lines, "event: process")
        assert json.loads(until(lines, "data: ")[6:])["service_name"] == "shop"
        until(lines, ": still here")
        view.publish(alerts=[alert()])
        until(lines, "event: alert")


def test_a_consumer_that_goes_gives_its_place_back(served: Served) -> None:
    with httpx.Client(base_url=served.url, timeout=10) as client:
        with client.stream("GET", "/api/v1/stream") as response:
            lines = response.iter_lines()
            until(lines, "retry")
            assert served.app.broker.subscribers == 1
        waiting = threading.Event()
        for _ in range(200):
            if served.app.broker.subscribers == 0:
                break
            waiting.wait(0.05)
        assert served.app.broker.subscribers == 0


def test_open_streams_do_not_hold_up_the_end_of_the_server(served: Served) -> None:
    with httpx.Client(base_url=served.url, timeout=10) as client, client.stream("GET", "/api/v1/stream") as response:
        lines = response.iter_lines()
        until(lines, "retry")
        assert served.stop(10), "well before the graceful timeout of 20 s"
        assert all(line.startswith(":") or not line for line in lines)


def test_with_every_place_taken_a_stream_is_refused_for_now(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_SUBSCRIBERS", 0)
    response = httpx.get(f"{served.url}/api/v1/stream")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
