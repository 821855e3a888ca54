"""Who is let in, and who may change something."""

from __future__ import annotations

import pytest

from otel_memory.probe.http.access import Access, is_loopback

HERE = {"host": "127.0.0.1:8432"}


def code(access: Access, headers: dict[str, str], *, client: str | None = "127.0.0.1", changing: bool = False) -> str:
    refusal = access.refusal(changing=changing, headers=headers, client=client)
    return "" if refusal is None else f"{refusal.status} {refusal.code}"


@pytest.mark.parametrize("changing", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1:8432", "localhost", "LOCALHOST.:80", "[::1]:8432"])
def test_served_on_loopback_without_a_token_this_machine_may_all(host: str, changing: bool) -> None:
    assert code(Access(changes=True), {"host": host}, changing=changing) == ""
    assert code(Access(changes=True), {"host": host}, client="::ffff:127.0.0.1", changing=changing) == ""


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"host": "evil.example:8432"}, "127.0.0.1"),  # a name that was made to point here
        ({"host": "127.0.0.1.evil.example"}, "127.0.0.1"),
        ({"host": "127.0.0.1@evil.example"}, "127.0.0.1"),
        ({}, "127.0.0.1"),
        (HERE, "10.0.0.7"),
        (HERE, None),
        (HERE, ""),
        ({**HERE, "x-forwarded-for": "127.0.0.1"}, "127.0.0.1"),
        ({**HERE, "forwarded": "for=127.0.0.1"}, "127.0.0.1"),
    ],
)
def test_others_are_not_let_in_without_a_token(headers: dict[str, str], client: str | None) -> None:
    for changing in (False, True):
        assert code(Access(changes=True), headers, client=client, changing=changing) == "403 not_local"


@pytest.mark.parametrize(
    "more",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:3000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize("access", [Access(changes=True), Access(protected=True), Access("s3cret", protected=True)])
def test_foreign_web_pages_are_not_let_in(access: Access, more: dict[str, str]) -> None:
    assert code(access, {**HERE, **more}) == "403 foreign_origin"
    assert code(access, {**HERE, **more}, changing=True) == "403 foreign_origin"


def test_a_page_of_the_same_origin_is_let_in() -> None:
    headers = {**HERE, "origin": "http://127.0.0.1:8432", "sec-fetch-site": "same-origin"}
    assert code(Access(changes=True), headers, changing=True) == ""


def test_a_token_is_demanded_of_everybody_where_there_is_one() -> None:
    access = Access("s3cret", changes=True)
    for given in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic s3cret"},
        {"authorization": "s3cret"},
    ):
        assert code(access, {**HERE, **given}) == "401 token_needed"
        assert code(access, {**HERE, **given}, changing=True) == "401 token_needed"
    for scheme in ("Bearer", "bearer"):
        headers = {"host": "pod.example", "origin": "http://dash.example", "authorization": f"{scheme} s3cret"}
        assert code(access, headers, client="10.0.0.7", changing=True) == ""
    assert code(access, {**HERE, "authorization": "Bearer s3cret\udcff\xe9"}) == "401 token_needed"


def test_mounted_without_a_token_this_machine_may_look_and_nobody_may_change() -> None:
    assert code(Access(), HERE) == ""
    assert code(Access(), HERE, changing=True) == "403 token_needed"


def test_an_application_that_protects_the_endpoints_itself_lets_in_whom_it_wants() -> None:
    assert code(Access(protected=True), {"host": "shop.example"}, client="10.0.0.7", changing=True) == ""


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)
