"""Fixture fleets in the REST form that the page reads. Deterministic: the moment is an argument, noise has a seed."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from typing import Any

MIB = 1024 * 1024
Json = dict[str, Any]
UNALARMED: dict[str, Json] = {
    "watch": {"leak_score": 0.55, "growth_bytes_per_second": 1500.0},
    "unknown": {"leak_score": None, "growth_bytes_per_second": None},
    "healthy": {"leak_score": 0.05, "growth_bytes_per_second": 3.0},
}
HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'


def stamp(time: float) -> str:
    """RFC 3339 in UTC of ``time`` (seconds since the epoch)."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def suspect(name: str, growth: float, share: float, confidence: float, kind: str = "route") -> Json:
    return {
        "kind": kind,
        "name": name,
        "growth_bytes_per_second": growth,
        "share": share,
        "confidence": confidence,
        "evidence": f"Memory grows by {growth / 4:,.0f} B with each of 4.0 calls/s; agrees at 3 of 3 time spans.",
    }


def process(identity: str, now: float, **changes: Any) -> Json:
    """A healthy process with every field; ``changes`` replace fields."""
    item: Json = {
        "id": identity,
        "service_name": "web",
        "service_version": "2.4.1",
        "service_instance_id": f"web-{identity[:6]}",
        "host_name": "node-3.eu-central.internal",
        "pid": 4242,
        "runtime": "CPython 3.13.1",
        "first_seen": stamp(now - 5 * 3600),
        "last_seen": stamp(now - 1),
        "memory_bytes": 84 * MIB,
        "limit_bytes": 512 * MIB,
        "limit_kind": "cgroup_v2",
        "verdict": "healthy",
        "leak_score": 0.04,
        "trend": "stable",
        "growth_bytes_per_second": 0.0,
        "time_to_limit_seconds": None,
        "leaking_since": None,
        "reasons": ["Level between full collections: no growth beyond noise over 28 min."],
        "suspects": [],
    }
    item.update(changes)
    if "utilization" not in changes:
        memory, limit = item["memory_bytes"], item["limit_bytes"]
        item["utilization"] = memory / limit if memory is not None and limit else None
    return item


def leaking(identity: str, now: float, **changes: Any) -> Json:
    """A process that leaks 1.2 MB/min through GET /cart."""
    rate = 1.2e6 / 60
    fields: Json = {
        "service_name": "shop",
        "service_instance_id": "shop-7c9f-x2lqp",
        "memory_bytes": 296 * MIB,
        "verdict": "leaking",
        "leak_score": 0.93,
        "trend": "increasing",
        "growth_bytes_per_second": rate,
        "time_to_limit_seconds": {"estimate": 11_320.0, "low": 7_300.0, "high": 18_100.0},
        "leaking_since": stamp(now - 2400),
        "reasons": [
            "The floor after collections rose in 24 of 26 windows: +48 MB in 40 min.",
            "Growth goes on at a steady pace (1.2 MB/min); a warm-up would have flattened.",
            "Growth follows the number of requests, not their rate of arrival alone.",
        ],
        "suspects": [
            suspect("GET /cart", rate * 0.87, 0.87, 0.91),
            suspect("shop.search:SearchIndex.refresh", rate * 0.09, 0.09, 0.42, "operation"),
            suspect("GET /", rate * 0.02, 0.02, 0.12),
        ],
    }
    return process(identity, now, **(fields | changes))


def alert(identity: str, of: Json, now: float, **changes: Any) -> Json:
    item: Json = {
        "id": identity,
        "name": "memory_leak",
        "severity": "critical",
        "state": "firing",
        "process": of["id"],
        "starts_at": stamp(now - 2100),
        "ends_at": None,
        "summary": f"{of['service_name']} leaks 1.2 MB/min; reaches its limit in about 3 h; first suspect GET /cart",
        "description": "Leak score 0.93 for longer than 60 s.",
        "suspects": of["suspects"],
        "labels": {"service_name": of["service_name"]},
        "annotations": {},
    }
    item.update(changes)
    return item


LEAKING_ID = "a1b2c3d4e5f60718"
HEALTHY_ID = "0918273645546372"


def two_apps(now: float) -> tuple[list[Json], list[Json]]:
    """One leaking, one healthy process, and the alert of the first."""
    leak = leaking(LEAKING_ID, now)
    calm = process(HEALTHY_ID, now, service_name="catalogue", service_instance_id="catalogue-58d4-m9rtz")
    return [leak, calm], [alert("alert-1", leak, now)]


def mixed_alerts(now: float) -> tuple[list[Json], list[Json]]:
    """The two applications with alerts in every state."""
    processes, alerts = two_apps(now)
    leak, calm = processes
    alerts += [
        alert("alert-2", leak, now, name="memory_limit_near", severity="warning", state="pending",
              starts_at=stamp(now - 40), summary="shop uses 58 % of its 512 MiB limit and grows", description=""),
        alert("alert-3", calm, now, severity="warning", state="resolved", starts_at=stamp(now - 30_000),
              ends_at=stamp(now - 26_000), summary="catalogue grew 0.4 MB/min",
              description="Growth ended with the deployment of version 2.4.1."),
    ]  # fmt: skip
    return processes, alerts


def many(now: float, number: int = 500) -> tuple[list[Json], list[Json]]:
    """A fleet of ``number`` processes, about 3 in 100 leaking."""
    noise = random.Random(7)
    services = ["checkout", "inventory", "search", "mailer", "payments", "recommendations", "sessions", "web"]
    items: list[Json] = []
    for index in range(number):
        service = services[index % len(services)]
        fields: Json = {"service_name": service, "service_instance_id": f"{service}-{index:04d}", "pid": 1000 + index}
        limit = noise.choice([256, 512, 1024, 2048]) * MIB
        draw = noise.random()
        if draw < 0.03:
            rate = noise.uniform(2e3, 9e4)
            memory = int(limit * noise.uniform(0.3, 0.93))
            reach = (limit - memory) / rate
            items.append(leaking(f"{index:016x}", now, **fields, limit_bytes=limit, memory_bytes=memory,
                                 growth_bytes_per_second=rate, leak_score=noise.uniform(0.75, 0.99),
                                 time_to_limit_seconds={"estimate": reach, "low": reach * 0.7, "high": reach * 1.6},
                                 suspects=[suspect(f"POST /{service}/items", rate, 0.9, 0.8)]))  # fmt: skip
            continue
        verdict = "watch" if draw < 0.08 else "unknown" if draw < 0.12 else "healthy"
        items.append(process(f"{index:016x}", now, **fields, limit_bytes=limit, verdict=verdict,
                             memory_bytes=int(limit * noise.uniform(0.1, 0.7)),
                             **UNALARMED[verdict]))  # fmt: skip
    alerts = [alert(f"alert-{item['id']}", item, now, summary=f"{item['service_instance_id']} leaks")
              for item in items if item["verdict"] == "leaking"]  # fmt: skip
    return items, alerts


def hostile(now: float) -> tuple[list[Json], list[Json]]:
    """Names that try to be markup, names without end, fields that are null, a process that has gone silent."""
    evil = leaking(
        "1111111111111111", now, service_name=HOSTILE, service_instance_id=HOSTILE, host_name=HOSTILE,
        service_version=HOSTILE, runtime=HOSTILE, reasons=[HOSTILE], suspects=[suspect(HOSTILE, 2e4, 0.9, 0.9)],
    )  # fmt: skip
    long = leaking(
        "2222222222222222", now, service_name="a-service-whose-name-goes-on-" * 6,
        service_instance_id="0123456789abcdef-" * 8,
        suspects=[suspect("GET /api/v2/organisations/{organisation_id}/projects/{project_id}" * 2, 2e4, 0.9, 0.9)],
    )  # fmt: skip
    empty = process("3333333333333333", now, verdict="unknown", reasons=[])
    kept = {"id", "service_name", "verdict", "reasons", "suspects", "last_seen"}
    empty = {key: value if key in kept else None for key, value in empty.items()}
    silent = process("4444444444444444", now, service_name="gone", last_seen=stamp(now - 400))
    return [evil, long, empty, silent], [alert("alert-evil", evil, now, summary=HOSTILE, description=HOSTILE)]


FLEETS = {
    "empty": lambda _now: ([], []),
    "two": two_apps,
    "alerts": mixed_alerts,
    "many": many,
    "hostile": hostile,
}


def some_silences(now: float) -> list[Json]:
    """One that has begun, one that will, one that is over."""

    def silence(identity: str, state: str, starts: float, ends: float, *matchers: Json, **more: str) -> Json:
        times = {"starts_at": stamp(now + starts), "ends_at": stamp(now + ends), "created_at": stamp(now - 900)}
        return {"id": identity, "state": state, "matchers": matchers, "comment": "", "created_by": "", **times, **more}

    def matcher(name: str, value: str, is_regex: bool = False, is_equal: bool = True) -> Json:
        return {"name": name, "value": value, "is_regex": is_regex, "is_equal": is_equal}

    shop = matcher("service_name", "shop")
    later = (matcher("service_name", "cart|checkout", True), matcher("severity", "critical", is_equal=False))
    return [
        silence("s1", "active", -600, 6600, shop, matcher("alertname", "memory_limit_near"), comment="load test",
                created_by="ann"),
        silence("s2", "coming", 3600, 90_000, *later),
        silence("s3", "over", -7200, -3600, matcher("host_name", "gone")),
    ]  # fmt: skip


def some_outputs(now: float) -> list[Json]:
    """One that does well, one that fails, one that had nothing to do."""

    def output(name: str, **more: Any) -> Json:
        counts = dict.fromkeys(("delivered", "failed", "abandoned", "pending", "held"), 0)
        times = dict.fromkeys(("last_delivered", "last_error", "busy_since", "failing_since"))
        return {"name": name, **counts, **times, **more}

    return [
        output("alertmanager alerts.example.org:9093", delivered=128, last_delivered=stamp(now - 42), failed=2),
        output("console"),
        output("webhook hooks.example.org 3f2a1c", delivered=7, failed=12, pending=3, held=1, abandoned=1,
               last_delivered=stamp(now - 7200), failing_since=stamp(now - 1500),
               last_error="ConnectionError: ConnectTimeout: timed out"),
    ]  # fmt: skip


SILENCES = {"alerts": some_silences}
OUTPUTS = {"alerts": some_outputs}


def series(item: Json, metric: str, begin: float, end: float, points: int) -> Json:
    """A plausible history of ``item``: a sawtooth over a floor that grows at the process's own rate."""
    unit = {"blocks": "{block}", "requests": "{request}"}.get(metric, "By")
    last = datetime.fromisoformat(item["last_seen"]).timestamp()
    start = max(begin, last - 4 * 3600)
    step = max((end - begin) / points, 1.0)
    memory, rate = item["memory_bytes"], item["growth_bytes_per_second"] or 0.0
    if memory is None or (metric == "floor" and item["verdict"] != "leaking"):
        return {"metric": metric, "unit": unit, "times": [], "values": []}
    noise = random.Random(item["id"])
    times: list[str] = []
    values: list[float | None] = []
    moment = start
    while moment <= min(end, last):
        age = last - moment
        level = max(memory * 0.25, memory - rate * age)
        saw = ((moment / 47) % 1) * memory * 0.03 + math.sin(moment / 90) * memory * 0.004
        value = {
            "memory": level - memory * 0.02 + saw + noise.uniform(0, memory * 0.004),
            "floor": level - memory * 0.022,
            "heap": level * 0.7 + saw,
            "blocks": level / 700,
            "requests": 3.0 * (moment - (last - 4 * 3600)),
            "limit": item["limit_bytes"],
        }[metric]
        gap = metric == "memory" and 0.30 < (moment - begin) / (end - begin) < 0.32
        times.append(stamp(moment))
        values.append(None if gap else round(value))
        moment += step
    return {"metric": metric, "unit": unit, "times": times, "values": values}
