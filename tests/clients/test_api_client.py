"""The REST client: what it asks, what it makes of bad answers, and that nothing it meets keeps it for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from otel_memory.clients import api_client
from otel_memory.clients.api_client import ApiClient, ClientError

Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler, url: str = "http://analyzer:8431", **more: Any) -> ApiClient:
    return ApiClient(url, transport=httpx.MockTransport(handler), **more)


def says(document: Any, status: int = 200, **more: Any) -> Handler:
    return lambda request: httpx.Response(status, json=document, **more)


def error_of(action: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        action()
    text = str(caught.value)
    assert all(line.isprintable() for line in text.split("\n"))
    return text


# --- asking ---------------------------------------------------------------------------------------------------


def test_the_token_is_sent_and_parameters_without_a_value_are_not() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    with client(handler, token="s3cret") as it:
        it.get("/api/v1/leaks", {"threshold": 0.5, "cursor": None})
    assert str(seen[0].url) == "http://analyzer:8431/api/v1/leaks?threshold=0.5"
    assert seen[0].headers["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("analyzer:8431", "http://analyzer:8431/x"),
        ("http://analyzer:8431/", "http://analyzer:8431/x"),
        ("https://example.org/memory/", "https://example.org/memory/x"),
        (" http://[::1]:8431 ", "http://[::1]:8431/x"),
    ],
)
def test_an_address_may_lack_its_scheme_and_may_have_a_path(url: str, asked: str) -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json={})

    with client(handler, url) as it:
        it.get("/x")
    assert seen == [asked]


@pytest.mark.parametrize("url", ["ftp://analyzer", "http://", "", "http://analyzer:port", "http://[::1"])
def test_what_is_no_address_is_told_with_one_that_is(url: str) -> None:
    assert "is no address" in error_of(lambda: client(says({}), url))


def test_a_password_in_the_address_is_not_shown() -> None:
    with client(says({}, 500), "http://me:secret@analyzer") as it:
        assert "secret" not in error_of(lambda: it.get("/x"))


@pytest.mark.parametrize("token", ["tökén", "a\nb"])
def test_a_token_that_no_header_can_carry_is_told_and_not_shown(token: str) -> None:
    text = error_of(lambda: client(says({}), token=token))
    assert "--token" in text
    assert token not in text


def test_a_proxy_of_the_outside_world_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    for url in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        with ApiClient(url) as it:
            assert it._http._mounts == {}, url
    with ApiClient("http://analyzer.example:1") as it:
        assert it._http._mounts


# --- bad answers ----------------------------------------------------------------------------------------------


def test_nothing_there_is_none() -> None:
    with client(says({"detail": "no process"}, 404)) as it:
        assert it.get("/api/v1/processes/x") is None


def test_nobody_there_names_the_next_step() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno 111] Connection refused")

    with client(refuse) as it:
        text = error_of(lambda: it.get("/x"))
    assert "no analyzer answers at http://analyzer:8431 ([Errno 111] Connection refused)" in text
    assert "mend: start one with `otel-memory serve`, or name its address with --url or OTEL_MEMORY_URL" in text


def test_a_server_that_hangs_is_told_so() -> None:
    def hang(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("")

    with client(hang) as it:
        assert "does not answer within 10 s" in error_of(lambda: it.get("/x"))


def test_a_port_that_speaks_no_http_is_told_so() -> None:
    def nonsense(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("illegal status line")

    with client(nonsense) as it:
        text = error_of(lambda: it.get("/x"))
    assert "does not speak HTTP" in text
    assert "port of the page (8431 unless set), not one of OTLP" in text


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_wanted_or_wrong_is_told_apart(status: int) -> None:
    with client(says({}, status)) as it:
        assert "wants a token" in error_of(lambda: it.get("/x"))
    with client(says({}, status), token="wrong") as it:
        text = error_of(lambda: it.get("/x"))
    assert "does not accept this token" in text
    assert "wrong" not in text


def test_a_refusal_is_told_in_the_analyzers_own_words() -> None:
    with client(says({"detail": "threshold: must be\nat most 1"}, 422)) as it:
        assert "answers 422: threshold: must be at most 1" in error_of(lambda: it.get("/x"))


@pytest.mark.parametrize("body", [b"", b"<html>\x1b[31mError\x07</html>", b"[1]", b'{"detail": {"a": 1}}', b"\xff\xfe"])
def test_any_body_of_a_refusal_can_be_told(body: bytes) -> None:
    with client(lambda request: httpx.Response(500, content=body)) as it:
        assert "answers 500" in error_of(lambda: it.get("/x"))


def test_a_redirect_is_told_and_not_followed() -> None:
    with client(lambda request: httpx.Response(302, headers={"Location": "https://elsewhere/x"})) as it:
        assert "sends on to https://elsewhere/x" in error_of(lambda: it.get("/x"))


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"7", b'{"a": NaN}', b'{"a": Infinity}', b"[" * 100_000, b'{"a": 1' + b"0" * 5000]
)
def test_what_is_no_json_object_is_no_analyzer(body: bytes) -> None:
    with client(lambda request: httpx.Response(200, content=body)) as it:
        assert "is no otel-memory analyzer" in error_of(lambda: it.get("/x"))


# --- bounds ---------------------------------------------------------------------------------------------------


def test_an_answer_without_an_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_client, "MAX_ANSWER_BYTES", 10_000)
    given = 0

    def endless() -> Iterator[bytes]:
        nonlocal given
        while True:
            given += 1000
            yield b" " * 1000

    with client(lambda request: httpx.Response(200, content=endless())) as it:
        assert "answers with more than" in error_of(lambda: it.get("/x"))
    assert given < 100_000


def test_an_answer_that_drips_is_given_up_by_our_own_clock() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 7.0
        return now

    def drip() -> Iterator[bytes]:
        while True:
            yield b" "

    with client(lambda request: httpx.Response(200, content=drip()), clock=clock) as it:
        assert "has not finished its answer within 60 s" in error_of(lambda: it.get("/x"))


def test_a_list_is_read_over_all_its_pages_with_the_same_parameters() -> None:
    asked: list[dict[str, str]] = []

    def pages(request: httpx.Request) -> httpx.Response:
        params = dict(request.url.params)
        asked.append(params)
        number = int(params.get("cursor", "0"))
        return httpx.Response(200, json={"items": [{"n": number}], "next": str(number + 1) if number < 2 else None})

    with client(pages) as it:
        assert [item["n"] for item in it.items("/list", {"limit": 1})] == [0, 1, 2]
    assert asked == [{"limit": "1"}, {"limit": "1", "cursor": "1"}, {"limit": "1", "cursor": "2"}]


@pytest.mark.parametrize(
    "following", [lambda n: "same", lambda n: str(n), lambda n: 7, lambda n: ["x"]], ids=["same", "new", "int", "list"]
)
def test_a_list_that_does_not_end_is_given_up(following: Callable[[int], Any]) -> None:
    count = 0

    def pages(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        return httpx.Response(200, json={"items": [{}], "next": following(count)})

    with client(pages) as it:
        assert "does not end" in error_of(lambda: list(it.items("/list")))
    assert count <= api_client.MAX_PAGES


def test_pages_without_items_do_not_go_on() -> None:
    count = 0

    def pages(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        return httpx.Response(200, json={"items": [], "next": str(count)})

    with client(pages) as it:
        assert "does not end" in error_of(lambda: list(it.items("/list")))
    assert count == 1


@pytest.mark.parametrize("document", [{}, {"items": None}, {"items": {}}, {"items": [1]}, {"items": "ab"}])
def test_what_is_no_list_is_no_analyzer(document: Any) -> None:
    with client(says(document)) as it:
        assert "is not a list" in error_of(lambda: list(it.items("/list")))


def test_a_list_that_is_not_there_is_no_analyzer() -> None:
    with client(says({}, 404)) as it:
        assert "it has no /api/v1/leaks" in error_of(lambda: list(it.items("/api/v1/leaks")))
