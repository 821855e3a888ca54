"""A silence that is made at one analyzer of a group holds at all of them, and for those that come later."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.harness import Analyzer, Kafka, fetch, wait_until
from tests.integration import kafka_world as world

pytestmark = [pytest.mark.needs("kafka"), pytest.mark.timeout(180)]


def make(analyzer: Analyzer) -> str:
    body = {
        "matchers": [{"name": "service_name", "value": "shop"}],
        "duration_seconds": 3600,
        "created_by": "ann",
        "comment": "deploy",
    }
    answer = fetch(
        f"{analyzer.url}/api/v1/silences",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
        timeout_seconds=30,
    )
    made: str = json.loads(answer)["id"]
    return made


def states(analyzer: Analyzer) -> dict[str, str]:
    items: list[dict[str, Any]] = analyzer.get("/api/v1/silences")["items"]
    return {one["id"]: one["state"] for one in items}


def test_silences_are_those_of_the_group() -> None:
    with Kafka() as kafka:
        world.make_topics(kafka, 2)
        processes = world.fleet_of(2, world.now_less(200))
        with (
            world.analyzer(kafka, "a") as first,
            world.analyzer(kafka, "b") as second,
            world.Fleet(kafka, processes, 2) as fleet,
        ):
            made = make(first)
            assert states(first) == {made: "active"}
            wait_until(lambda: states(second) == {made: "active"}, timeout_seconds=60, what="the silence at the other")
            for index in range(90):
                fleet.send(index)

            def silenced() -> bool:
                found = second.get("/api/v1/alerts?state=firing")["items"]
                return bool(found) and all(one["silenced_by"] == [made] for one in found)

            wait_until(silenced, timeout_seconds=90, what="a firing alert that is silenced")
            fetch(f"{second.url}/api/v1/silences/{made}", method="DELETE", timeout_seconds=30)
            wait_until(
                lambda: states(first) == {made: "over"}, timeout_seconds=60, what="its end at the one that made it"
            )
            again = make(second)
            with world.analyzer(kafka, "c") as third:
                expected = {made: "over", again: "active"}
                wait_until(lambda: states(third) == expected, timeout_seconds=60, what="both at a newcomer")
            with world.committed_reader(kafka) as reader:
                assert {"AssessmentRecord", "Silence"} <= world.forms_in(reader)
