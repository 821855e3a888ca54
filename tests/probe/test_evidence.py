"""When evidence is looked for, how its kind is judged, and the form of its event."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from otel_memory import names
from otel_memory.probe.config import Settings
from otel_memory.probe.evidence import (
    Evidence,
    HolderGrowth,
    PartGrowth,
    SiteGrowth,
    TypeGrowth,
    confidence,
    judge_kind,
)
from otel_memory.probe.evidence_feature import REPEAT_SECONDS, EvidenceFeature

MB = 1_000_000


class Stage:
    """The feature among fakes: memory is what the test says, background work is done at once."""

    def __init__(self, memory: Callable[[float], float]) -> None:
        self.memory = memory
        self.now = 0.0
        self.events: list[dict[str, Any]] = []
        self.looks = 0
        self.bursts: list[float] = []
        self.refuse = False
        heap = SimpleNamespace(latest=lambda: SimpleNamespace(arena_bytes=None, mmap_bytes=None, blocks=None))
        around: Any = SimpleNamespace(
            settings=Settings.load({}),
            parts=SimpleNamespace(heap=heap, process=SimpleNamespace(latest=lambda: SimpleNamespace(rss_bytes=None))),
            emit=lambda name, body, attributes, severity: self.events.append(dict(attributes, name=name, body=body)),
            background=SimpleNamespace(submit=self.submit, stopping=False),
        )
        self.feature = EvidenceFeature(
            around, anonymous=lambda: int(self.memory(self.now)), look=self.look, conclude=self.conclude
        )

    def submit(self, part: str, job: Callable[[], object]) -> bool:
        if not self.refuse:
            job()
        return not self.refuse

    def look(self, *_: Any) -> Any:
        self.looks += 1
        return SimpleNamespace()

    def conclude(self, *_: Any, growth: float, window_seconds: float, burst_seconds: float, **__: Any) -> Evidence:
        self.bursts.append(burst_seconds)
        return Evidence("python", growth, window_seconds, burst_seconds=burst_seconds)

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.feature.tick(self.now)
            self.now += 1.0


def test_a_leak_is_told_within_two_minutes_and_once() -> None:
    stage = Stage(lambda t: 100 * MB + 200_000 * t)
    stage.run(120)
    (event,) = stage.events
    assert event["name"] == names.EVENT_EVIDENCE
    assert event[names.EVIDENCE_GROWTH] == pytest.approx(200_000, rel=0.1)
    assert event[names.EVIDENCE_ROUND] == 1
    stage.run(300)
    assert len(stage.events) == 1
    assert stage.bursts == [1.0]


def test_without_growth_nothing_is_looked_at() -> None:
    stage = Stage(lambda t: 100 * MB)
    stage.run(1000)
    assert (stage.looks, stage.bursts, stage.events) == (0, [], [])


def test_growth_that_ends_in_time_is_given_up_without_a_burst() -> None:
    stage = Stage(lambda t: 100 * MB + 300_000 * min(t, 70))
    stage.run(400)
    assert stage.looks == 1
    assert (stage.bursts, stage.events) == ([], [])
    assert stage.feature.status()["ended_before_they_were_sure"] == 1


def test_the_same_growth_keeps_its_id_and_another_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ended_at = 2000.0
    stage = Stage(lambda t: 100 * MB + 200_000 * min(t, ended_at) + 200_000 * max(0.0, t - 4000.0))
    monkeypatch.setattr("otel_memory.probe.evidence_feature.time.monotonic", lambda: stage.now)
    stage.run(2000)
    ids = [event[names.EVENT_ID] for event in stage.events]
    assert len(ids) == pytest.approx(2000 / REPEAT_SECONDS, abs=1)
    assert len(set(ids)) == 1
    assert [event[names.EVIDENCE_ROUND] for event in stage.events] == list(range(1, len(ids) + 1))
    stage.run(2600)
    assert stage.events[-1][names.EVENT_ID] != ids[0]
    assert stage.events[-1][names.EVIDENCE_ROUND] == 1


def test_a_full_background_is_tried_again() -> None:
    stage = Stage(lambda t: 100 * MB + 200_000 * t)
    stage.refuse = True
    stage.run(100)
    assert stage.looks == 0
    stage.refuse = False
    stage.run(60)
    assert len(stage.events) == 1


def test_a_look_that_fails_ends_the_round_and_not_the_feature() -> None:
    stage = Stage(lambda t: 100 * MB + 200_000 * t)

    def fails(*_: Any) -> Any:
        raise RuntimeError("no")

    def submit(part: str, job: Callable[[], object]) -> bool:
        with pytest.raises(RuntimeError):
            job()
        return True

    stage.feature._look, stage.feature._around.background.submit = fails, submit  # type: ignore[method-assign]
    stage.run(100)
    assert stage.feature.status()["looking"] is False


def test_the_child_of_a_fork_begins_anew() -> None:
    stage = Stage(lambda t: 100 * MB + 200_000 * t)
    stage.run(80)
    stage.feature.after_fork()
    stage.run(40)
    assert stage.events == []


@pytest.mark.parametrize(
    ("kind", "measured"),
    [
        ("python", {"traced": 0.9e6}),
        ("native", {"traced": 0.01e6, "parts": PartGrowth(python_used=0.0, c_used=1e6)}),
        ("fragmentation", {"traced": 0.0, "parts": PartGrowth(c_used=0.1e6, c_free=0.7e6, python_free=0.1e6)}),
        ("mapped", {"traced": 0.0, "parts": PartGrowth(c_used=0.1e6, other=0.9e6)}),
        ("threads", {"traced": 0.1e6, "threads": 40, "parts": PartGrowth(stack=0.8e6)}),
        ("unknown", {"traced": 0.0, "parts": PartGrowth(c_used=0.1e6)}),
        ("cycles", {"traced": 0.9e6, "holders": [HolderGrowth("only itself", "cycle", "shop.Node", 90, single=True)]}),
        ("python", {"traced": None, "parts": PartGrowth(python_used=0.8e6)}),
        ("python", {"traced": None, "holders": [HolderGrowth("shop.CACHE", "global", "list", 10, 9_000_000)]}),
        # A burst makes a busy server so slow that little comes while it lasts: that speaks against nothing.
        ("python", {"traced": 0.05e6, "parts": PartGrowth(python_used=0.7e6, c_used=0.3e6)}),
        (
            "python",
            {
                "traced": 0.0,
                "holders": [HolderGrowth("shop.PAGES", "global", "list", 10, 9_000_000)],
                "parts": PartGrowth(python_used=0.0, c_used=1e6),
            },
        ),
        (
            "native",
            {
                "traced": 0.9e6,
                "holders": [HolderGrowth("shop.ZIPPED", "global", "dict of zlib.Compress", 40, 4000)],
                "parts": PartGrowth(python_used=0.0, c_used=0.9e6),
            },
        ),
        # Python's allocator tells nothing while the program traces itself; what it has traced does.
        (
            "python",
            {
                "traced": 0.6e6,
                "holders": [HolderGrowth("shop.CARTS", "global", "list of dict", 40, 1_000_000)],
                "parts": PartGrowth(c_used=0.9e6),
            },
        ),
        ("native", {"traced": 0.1e6, "parts": PartGrowth(python_used=0.35e6, c_used=0.6e6)}),
    ],
)
def test_the_kind_is_what_grew_most(kind: str, measured: dict[str, Any]) -> None:
    defaults: dict[str, Any] = {"parts": PartGrowth(), "holders": (), "threads": 0}
    assert judge_kind(growth=1e6, elapsed=10.0, **{**defaults, **measured}) == kind


def test_the_event_has_only_known_attributes_and_lists_of_equal_length() -> None:
    found = Evidence(
        kind="python",
        growth=1e6,
        window_seconds=60.0,
        sites=(SiteGrowth("shop.py:3 buy", 9e5),),
        types=(TypeGrowth("shop.Order", 40),),
        holders=(HolderGrowth("shop.ORDERS", "global", "list of shop.Order", 40, 5000, "shop.py:3 buy"),),
        notes=("threads grew from 1 to 9",),
        gave_up=("too many objects",),
        parts=PartGrowth(1.0, 2.0, 3.0, 4.0, 5.0, 6.0),
        threads=8,
        descriptors=0,
    )
    attributes = found.attributes()
    known = names.EVENTS[names.EVENT_EVIDENCE].attributes
    assert set(attributes) | {names.EVENT_ID, names.EVIDENCE_ROUND, names.PROCESS_PID} == set(known)
    types = {"string": str, "int": int, "double": float}
    for name, value in attributes.items():
        declared = names.ATTRIBUTES[name].type
        items = value if isinstance(value, list) else [value]
        assert isinstance(value, list) == declared.endswith("[]"), name
        assert all(type(item) is types[declared.removesuffix("[]")] for item in items), name
    assert "shop.py:3 buy" in found.summary()
    assert "shop.ORDERS" in found.summary()


@pytest.mark.parametrize(
    ("holder", "sentence"),
    [
        (
            HolderGrowth(
                "shop.cart._PRICED (module global)",
                *("global", "dict of builtins.list", 1240, 38 * 1024 * 1024, "shop/cart.py:41 price"),
            ),
            "shop.cart._PRICED, a dict, grew by 1,240 entries (about 38.0 MiB) in 20 min; they are made in "
            "shop/cart.py:41 price()",
        ),
        (
            HolderGrowth(
                "shop.Log.text (instance attribute), kept by shop.log", "instance", "_io.BytesIO (bytes)", 4096
            ),
            "shop.Log.text (kept by shop.log), a BytesIO, grew by 4.00 KiB in 20 min",
        ),
        (
            HolderGrowth("shop.page (cache of a function)", "cache", "collections.OrderedDict of str", 9, 900),
            "the cache of shop.page(), an OrderedDict, grew by 9 entries (about 900 B) in 20 min",
        ),
        (
            HolderGrowth("shop.JOBS (module global)", "global", "shop.Job", 70, 7000, single=True),
            "shop.JOBS holds ever more shop.Job objects: +70 (about 6.84 KiB) in 20 min",
        ),
        (
            HolderGrowth("only itself: a cycle", "cycle", "shop.Node", 70, 7000, single=True),
            "70 more shop.Node objects (about 6.84 KiB) in 20 min that only cycles hold",
        ),
    ],
)
def test_what_grows_is_said_in_a_sentence(holder: HolderGrowth, sentence: str) -> None:
    assert holder.sentence(1200.0) == sentence


def test_nothing_found_is_said_too() -> None:
    found = Evidence("unknown", 1e6, 60.0, notes=("Threads grew from 1 to 9",))
    assert (
        found.summary() == "Memory grew by 977 KiB/s for 1 min. No look found out what it is. Threads grew from 1 to 9."
    )


def holder_of(size: int) -> HolderGrowth:
    return HolderGrowth("shop.ORDERS (module global)", "global", "list", 40, size)


@pytest.mark.parametrize(
    ("least", "most", "kind", "found"),
    [
        (0.9, 1.0, "python", {"holders": [holder_of(9_900_000)], "parts": PartGrowth(python_used=1e6)}),
        (0.6, 0.8, "python", {"holders": [holder_of(5_000_000)], "parts": PartGrowth(python_used=1e6)}),
        (0.3, 0.45, "python", {"holders": [holder_of(100_000)], "parts": PartGrowth(python_used=1e6)}),
        (0.0, 0.3, "python", {"holders": [], "parts": PartGrowth(python_used=0.9e6)}),
        (0.8, 0.9, "fragmentation", {"parts": PartGrowth(c_free=1e6)}),
        (0.4, 0.6, "native", {"parts": PartGrowth(c_used=1e6)}),
        (0.0, 0.0, "unknown", {}),
    ],
)
def test_confidence_is_as_high_as_what_is_explained(
    least: float, most: float, kind: Any, found: dict[str, Any]
) -> None:
    measured: dict[str, Any] = {"holders": (), "parts": PartGrowth(), "sites": [SiteGrowth("a.py:1 f", 1.0)], **found}
    went_on = confidence(kind, 1e6, 10.0, **measured)
    assert least <= went_on <= most
    assert confidence(kind, 1e6, 10.0, **measured, went_on=False) == pytest.approx(went_on / 2, abs=0.001)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("evidence", "tracing", "one or several of census, burst"),
        ("evidence_share", "0", "share"),
        ("evidence_burst", "2h", "expected milliseconds"),
        ("evidence_frames", "0", "from 1 to 25"),
    ],
)
def test_a_wrong_setting_names_itself(key: str, value: str, what: str) -> None:
    variable = f"OTEL_PYTHON_MEMORY_{key.upper()}"
    with pytest.raises(ValueError, match=what) as raised:
        Settings.load({variable: value})
    assert variable in str(raised.value)


TRACED = """
import threading, tracemalloc
from otel_memory import capture_evidence
tracemalloc.start()
carts, stop = [], threading.Event()
def sell():
    while not stop.wait(0.002):
        carts.append({f"k{i}": i for i in range(200)})
thread = threading.Thread(target=sell)
thread.start()
found = capture_evidence(seconds=1.0)
stop.set()
thread.join()
print(found.kind, found.holders[0].name, tracemalloc.is_tracing())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_what_tracemalloc_keeps_of_a_program_that_traces_itself_is_not_taken_for_memory_of_c_code() -> None:
    done = subprocess.run([sys.executable, "-c", TRACED], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.strip(), done.stderr) == ("python __main__.carts (module global) True", "")
