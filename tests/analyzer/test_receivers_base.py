"""What the receivers share: the budget, the token, the status."""

from __future__ import annotations

import pytest
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from otel_memory.analyzer.receivers.base import Budget, Overloaded, authorized, rpc_status


def test_a_budget_is_shared_and_given_back() -> None:
    budget = Budget(10)
    with budget.share() as one, budget.share() as two:
        one.take(6)
        two.take(4)
        with pytest.raises(Overloaded):
            one.take(1)
        assert budget.held == 10
    assert budget.held == 0


def test_a_budget_is_given_back_when_the_request_fails() -> None:
    budget = Budget(10)
    with pytest.raises(ZeroDivisionError), budget.share() as share:
        share.take(10)
        raise ZeroDivisionError
    assert budget.held == 0


@pytest.mark.parametrize(
    ("token", "authorization", "allowed"),
    [
        (None, None, True),
        (None, "anything", True),
        ("s", None, False),
        ("s", "", False),
        ("s", "Bearer s", True),
        ("s", b"Bearer s", True),
        ("s", "bearer  s ", True),
        ("s", "Bearer t", False),
        ("s", "s", False),
        ("s", "Basic s", False),
        ("schlüssel", "Bearer schlüssel", True),
        ("s", "Bearer \ud800", False),
    ],
)
def test_the_token(token: str | None, authorization: str | bytes | None, allowed: bool) -> None:
    assert authorized(token, authorization) is allowed


def test_a_status_has_code_message_and_the_time_to_come_again() -> None:
    status = Status.FromString(rpc_status("busy", 14, 1.5))
    retry = RetryInfo()
    assert (status.code, status.message, len(status.details)) == (14, "busy", 1)
    assert status.details[0].Unpack(retry)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 500_000_000)


def test_a_status_without_a_time_has_no_details() -> None:
    assert not Status.FromString(rpc_status("no")).details
