"""Outputs that post: what an answer means, what Alertmanager and webhooks are sent, and what is told again."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from otel_memory.analyzer.model import Alert, AlertState
from otel_memory.analyzer.outputs.alertmanager import END_SECONDS, MAX_ALERTS, AlertmanagerOutput, to_alert
from otel_memory.analyzer.outputs.base import AlertChange, Busy, Refused, change_id, notable
from otel_memory.analyzer.outputs.http_post import Poster
from otel_memory.analyzer.outputs.webhook import SIGNATURE, TIMESTAMP, WebhookOutput, message_id, signature
from tests.analyzer.store_samples import T0, alert, assessment
from tests.integration.alerting_world import Hook

NOW = T0 + 1000


def clock() -> float:
    return NOW


def fired(number: int = 1, state: AlertState = AlertState.FIRING, **more: Any) -> Alert:
    return replace(alert(number, state), fired_at=T0 + 10, **more)


def change(number: int = 1, state: AlertState = AlertState.FIRING, *, at: float = T0 + 10, **more: Any) -> AlertChange:
    one = fired(number, state, **more)
    return AlertChange(change_id(one, at), at, one, assessment())


# --- what an answer means ----------------------------------------------------------------------------------


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as made:
        yield made


def poster(url: str) -> Poster:
    return Poster(url, clock=clock, timeout_seconds=2)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_what_was_taken_is_taken(status: int) -> None:
    with Hook(lambda _count: status) as hook:
        poster(hook.url).post(b"{}", {"X-A": "b"})
        ((headers, body),) = hook.posts
    assert (headers["x-a"], body) == ("b", b"{}")
    assert headers["user-agent"].startswith("otel-memory/")


@pytest.mark.parametrize("status", [400, 401, 404, 410, 413])
def test_what_will_never_be_taken_is_refused(status: int) -> None:
    with Hook(lambda _count: status) as hook, pytest.raises(Refused, match=f"HTTP status {status}"):
        poster(hook.url).post(b"{}", {})


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_what_may_be_taken_later_is_busy(status: int) -> None:
    with Hook(lambda _count: status) as hook, pytest.raises(Busy, match=f"HTTP status {status}"):
        poster(hook.url).post(b"{}", {})


def test_an_address_that_nobody_listens_on_is_no_refusal() -> None:
    with Hook() as hook:
        url = hook.url
    with pytest.raises(ConnectionError) as caught:
        poster(url).post(b"{}", {})
    assert not isinstance(caught.value, Busy)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("", 0.0),
        ("7", 7.0),
        ("999999999", 86400.0),
        ("soon", 0.0),
        (format_datetime(datetime.fromtimestamp(NOW + 30, UTC), usegmt=True), 30.0),
        (format_datetime(datetime.fromtimestamp(NOW - 30, UTC), usegmt=True), 0.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(given: str, seconds: float) -> None:
    assert poster("http://127.0.0.1:1")._retry_after(given) == pytest.approx(seconds, abs=1)


# --- Alertmanager ------------------------------------------------------------------------------------------


def test_labels_are_the_same_over_the_life_of_an_alert_and_figures_are_annotations() -> None:
    first = to_alert(fired(annotations={"leak_score": "0.9"}), NOW, None)
    later = to_alert(fired(annotations={"leak_score": "0.99"}), NOW + 60, None)
    over = to_alert(fired(state=AlertState.RESOLVED, ends_at=NOW), NOW + 1, None)
    assert first["labels"] == later["labels"] == over["labels"]
    assert first["labels"]["alertname"] == fired().name
    assert first["annotations"] == {"leak_score": "0.9", "alert_id": fired().id}
    assert first["startsAt"] == later["startsAt"] == over["startsAt"]
    assert "" not in to_alert(fired(labels={"service_version": ""}), NOW, None)["labels"].values()
    assert "generatorURL" not in first


@pytest.mark.parametrize(
    ("state", "ends_at", "end"),
    [
        (AlertState.FIRING, None, NOW + END_SECONDS),
        (AlertState.RESOLVED, NOW - 5, NOW - 5),
        # Event time ahead of the clock here: an end to come would leave it firing.
        (AlertState.RESOLVED, NOW + 3600, NOW),
    ],
)
def test_what_fires_ends_by_itself_unless_told_again(state: AlertState, ends_at: float | None, end: float) -> None:
    form = to_alert(fired(state=state, ends_at=ends_at), NOW, None)
    assert datetime.fromisoformat(form["endsAt"]).timestamp() == pytest.approx(end, abs=0.001)


def test_an_alert_never_ends_before_it_starts() -> None:
    form = to_alert(replace(fired(state=AlertState.RESOLVED, ends_at=NOW), fired_at=NOW + 60), NOW, None)
    assert form["startsAt"] <= form["endsAt"]


def test_the_link_leads_to_the_process_and_can_not_be_led_astray() -> None:
    form = to_alert(fired(process="../a b"), NOW, "https://memory.example.org")
    assert form["generatorURL"] == "https://memory.example.org/#/process/..%2Fa%20b"


def test_repeats_go_in_parts_with_the_token(hook: Hook) -> None:
    output = AlertmanagerOutput(f"http://127.0.0.1:{hook.port}/am/", token="a-token", clock=clock)
    output.repeat([fired(number) for number in range(MAX_ALERTS + 1)])
    output.close()
    assert [len(json.loads(body)) for _, body in hook.posts] == [MAX_ALERTS, 1]
    assert {headers["authorization"] for headers, _ in hook.posts} == {"Bearer a-token"}
    assert output.name == f"alertmanager 127.0.0.1:{hook.port}/am"


def test_a_password_in_the_address_is_used_and_shown_nowhere(hook: Hook) -> None:
    output = AlertmanagerOutput(f"http://ann:secret@127.0.0.1:{hook.port}")
    output.deliver(change())
    output.close()
    assert hook.posts[0][0]["authorization"].startswith("Basic ")
    assert "secret" not in output.name


@pytest.mark.parametrize(
    ("state", "fired_at", "told"),
    [
        (AlertState.PENDING, None, False),
        (AlertState.FIRING, T0, True),
        (AlertState.RESOLVED, T0, True),
        (AlertState.RESOLVED, None, False),
    ],
)
def test_only_what_fires_or_fired_is_worth_telling(state: AlertState, fired_at: float | None, told: bool) -> None:
    one = replace(alert(1, state), fired_at=fired_at)
    assert notable(AlertChange("id", T0, one)) is told


# --- webhooks ----------------------------------------------------------------------------------------------


def test_the_signature_is_over_the_timestamp_and_the_bytes_that_were_sent(hook: Hook) -> None:
    output = WebhookOutput(hook.url, secret="s3cret", clock=clock)
    output.deliver(change(summary="größer"))
    output.close()
    ((headers, body),) = hook.posts
    stamp = headers[TIMESTAMP.lower()]
    assert stamp == str(int(NOW))
    expected = hmac.new(b"s3cret", f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    assert headers[SIGNATURE.lower()] == f"sha256={expected}" == signature("s3cret", stamp, body)
    assert "größer" in body.decode()


def test_a_message_holds_each_alert_as_rest_gives_it(hook: Hook) -> None:
    output = WebhookOutput(hook.url, page="https://memory.example.org/", clock=clock)
    changes = [change(1), change(2, AlertState.RESOLVED, ends_at=T0 + 60, at=T0 + 60)]
    output.deliver_group(changes)
    output.close()
    (message,) = hook.messages
    assert set(message) == {"form", "id", "sent_at", "group", "alerts"}
    assert message["form"] == 1
    assert message["id"] == message_id(changes) == message_id(changes[::-1])
    assert message["group"] == {"service_name": "shop", "service_version": assessment().process.service_version}
    assert [one["state"] for one in message["alerts"]] == ["firing", "resolved"]
    assert message["alerts"][0]["url"] == f"https://memory.example.org/#/process/{fired().process}"
    assert message["alerts"][0]["changed_at"] == "2027-01-15T08:00:10.000Z"
    assert "silenced_by" not in message["alerts"][0]


def test_what_can_not_be_encoded_does_not_stop_a_message(hook: Hook) -> None:
    output = WebhookOutput(hook.url, clock=clock)
    output.deliver(change(summary="half a pair: \ud800"))
    output.close()
    assert hook.messages[0]["alerts"][0]["summary"].startswith("half a pair")


def test_groups_are_of_one_service_and_version() -> None:
    output = WebhookOutput("http://127.0.0.1:1/x")
    base = assessment()
    other = replace(base, process=replace(base.process, service_version="2"))
    groups = [
        output.group_of(replace(change(number), assessment=one)) for number, one in enumerate((base, base, other))
    ]
    assert groups[0] == groups[1] != groups[2]
    output.close()


def test_two_webhooks_of_one_host_have_names_of_their_own_that_tell_no_path() -> None:
    names = {WebhookOutput(f"https://hooks.example.org/T0K3N/{end}").name for end in ("a", "b")}
    assert len(names) == 2
    assert all(name.startswith("webhook hooks.example.org ") and "T0K3N" not in name for name in names)
