"""Diagnostic collections: what they name, and that they leave the collector as they found it, whatever happens."""

from __future__ import annotations

import asyncio
import collections
import ctypes
import gc
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from otel_memory import DiagnosticRun, MonitoringError, diagnostic_gc_run, diagnostic_gc_run_async, names
from otel_memory.probe import (
    cycle_graph,
    cycle_labels,
    cycle_suspended,
    diagnostics,
    diagnostics_record,
    events,
    garbage,
)
from otel_memory.probe.background import Background
from otel_memory.probe.config import Settings, SettingsError
from otel_memory.probe.diagnostics_feature import DiagnosticsFeature
from otel_memory.probe.feature import Surroundings
from otel_memory.probe.ledger import Ledger
from otel_memory.probe.thresholds import Crossing, Rule
from tests.harness import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quiet_collector() -> Iterator[None]:
    """Nothing of other tests in the way, and the collector as it was found."""
    gc.collect()
    enabled, flags, kept = gc.isenabled(), gc.get_debug(), list(gc.garbage)
    gc.disable()
    gc.freeze()  # pytest's own heap is not looked at, again and again
    yield
    gc.unfreeze()
    assert gc.get_debug() == flags
    assert gc.garbage == kept
    if enabled:
        gc.enable()


def only(path: str, chains: tuple[cycle_graph.Chain, ...]) -> None:
    assert path in [chain.path for chain in chains], chains


class Node:
    def __init__(self, parent: Node | None = None) -> None:
        self.parent = parent
        self.children: list[Node] = []
        if parent is not None:
            parent.children.append(self)


class Slotted:
    __slots__ = ("other",)
    other: Slotted


class Thing:
    """Any attribute."""

    def method(self) -> None: ...

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


# --- what is named ----------------------------------------------------------------------------------------------


def tree(count: int = 10) -> None:
    gc.collect()
    for _ in range(count):
        Node(Node())


def slots() -> None:
    one, other = Slotted(), Slotted()
    one.other, other.other = other, one


def closure() -> None:
    def inner() -> Any:
        return inner


def bound_method() -> None:
    thing = Thing()
    thing.on_event = thing.method


def lambda_in_a_dict() -> None:
    thing = Thing()
    thing.table = {"callback": lambda: thing}


def a_partial() -> None:
    thing = Thing()
    thing.later = partial(print, thing)


def a_default() -> None:
    thing = Thing()

    def callback(owner: Any = thing) -> None: ...

    thing.callback = callback


def an_exception() -> None:
    try:
        raise ValueError("on purpose")
    except ValueError as error:
        kept = error  # the frame holds the exception that holds the frame
        kept.with_traceback(error.__traceback__)


def a_class() -> None:
    class Local: ...


def a_deque() -> None:
    thing = Thing()
    thing.queue = collections.deque([{"owner": thing}])


def an_ordered_dict() -> None:
    thing = Thing()
    thing.cache = collections.OrderedDict(me=thing)


def a_set() -> None:
    thing = Thing()
    thing.others = {thing}


def a_dict_alone() -> None:
    itself: dict[str, Any] = {}
    itself["itself"] = itself


def lists_alone() -> None:
    itself: list[Any] = []
    itself.append((itself,))


def a_subclass_of_dict() -> None:
    class Registry(dict[str, Any]): ...

    registry = Registry()
    registry["self"] = registry


def big_data() -> None:
    thing = Thing()
    thing.by_user = {f"user{number}": thing for number in range(100)}


def a_secret_key() -> None:
    thing = Thing()
    thing.by_user = {"alice@example.org": thing, ("a", "tuple"): thing}


LOCAL = "a_subclass_of_dict.<locals>.Registry"
SHAPES: list[tuple[Callable[[], None], str]] = [
    (tree, "Node.children[list] -> Node.parent -> Node"),
    (slots, "Slotted.other -> Slotted.other -> Slotted"),
    (closure, "function closure.<locals>.inner closure 'inner' -> function closure.<locals>.inner"),
    (bound_method, "Thing.on_event -> method.__self__ -> Thing"),
    (
        lambda_in_a_dict,
        "Thing.table['callback'] -> function lambda_in_a_dict.<locals>.<lambda> closure 'thing' -> Thing",
    ),
    (a_partial, "Thing.later -> partial.args[tuple] -> Thing"),
    (a_default, "Thing.callback -> function a_default.<locals>.callback default -> Thing"),
    (
        an_exception,
        "ValueError.__traceback__ -> traceback.tb_frame -> frame of an_exception() local 'kept' -> ValueError",
    ),
    (a_class, "class a_class.<locals>.Local.__mro__[tuple] -> class a_class.<locals>.Local"),
    (a_deque, "Thing.queue[deque]['owner'] -> Thing"),
    (an_ordered_dict, "Thing.cache[OrderedDict 'me'] -> Thing"),
    (a_set, "Thing.others[set] -> Thing"),
    (a_dict_alone, "dict['itself'] -> dict"),
    (lists_alone, "list[] -> tuple[] -> list"),
    (a_subclass_of_dict, f"{LOCAL}['self'] -> {LOCAL}"),
    (big_data, "Thing.by_user[dict value] -> Thing"),
    (a_secret_key, "Thing.by_user[dict value] -> Thing"),
]


@pytest.mark.parametrize(("make", "path"), SHAPES, ids=[make.__name__ for make, _ in SHAPES])
def test_the_way_round_a_cycle_is_named(make: Callable[[], None], path: str) -> None:
    make()
    done = diagnostic_gc_run()
    only(path, done.chains)
    assert done.incomplete == ()
    assert done.cycles >= 1
    assert done.objects_in_cycles >= 1
    assert gc.collect() == 0, "all of it is freed"
    assert "alice" not in json.dumps(done.to_dict())
    assert "user7" not in json.dumps(done.to_dict())


def test_counts_by_type_and_holders_are_exact() -> None:
    tree()
    done = diagnostic_gc_run()
    types = {each.name: (each.count, each.in_cycles) for each in done.types}
    assert types[f"{__name__}.Node"] == (20, 20)
    assert types["list"] == (20, 10), "ten lists of children are empty and only hang on"
    holders = {each.path: each.count for each in done.holders}
    assert holders == {"Node.children[list] -> Node": 10, "Node.parent -> Node": 10}
    assert done.cycles == 10
    assert [(chain.cycles, chain.objects) for chain in done.chains] == [(10, 30)]


def test_each_generation_has_its_own_count() -> None:
    old, middle = Thing(), Thing()
    old.itself = old
    gc.collect(1)  # old is in generation 2 now
    gc.collect(1)
    middle.itself = middle
    gc.collect(0)
    del old, middle
    for _ in range(10):
        Node(Node())
    done = diagnostic_gc_run()
    assert done.collected[0] == 40, "twenty nodes, twenty lists"
    assert sum(done.collected[1:]) >= 2
    assert done.total_collected == sum(done.collected)
    assert len(done.durations.collect) == 3
    assert 0 < done.durations.pause <= done.durations.total


def test_memory_is_back_where_it_was() -> None:
    """Measured: the garbage is alive while it is looked at, and gone afterwards."""
    diagnostic_gc_run()
    before = sys.getallocatedblocks()
    for _ in range(2000):
        Node(Node())
    with_garbage = sys.getallocatedblocks()
    done = diagnostic_gc_run()
    assert with_garbage - before > 4000
    assert sys.getallocatedblocks() - before < 1000
    assert done.before.blocks is not None
    assert done.after.blocks is not None
    assert done.before.blocks - done.after.blocks > 4000
    assert done.uncollectable == 0


def test_a_generator_that_the_collection_closes_is_named_and_its_finally_runs_once() -> None:
    closed: list[str] = []

    def numbers(self: Thing) -> Iterator[Thing]:
        try:
            yield self
        finally:
            closed.append("closed")

    def make() -> None:
        thing = Thing()
        thing.stream = numbers(thing)
        next(thing.stream)

    for _ in range(5):
        make()
    living = numbers(Thing())
    next(living)
    done = diagnostic_gc_run()
    name = "generator test_a_generator_that_the_collection_closes_is_named_and_its_finally_runs_once.<locals>.numbers()"
    (chain,) = done.generators
    assert chain.path.startswith(name[:80])
    assert "Thing.stream" in chain.path
    assert (chain.cycles, done.closed_generators, len(closed)) == (5, 5, 5)
    assert next(living, None) is None, "the living one was not touched, and goes on"


def test_finalizers_run_once_and_weak_references_are_cleared_before_them() -> None:
    log: list[str] = []

    class Finalized:
        def __del__(self) -> None:
            log.append("del")

    def make() -> weakref.ref[Any]:
        thing = Finalized()
        thing.itself = thing  # type: ignore[attr-defined]
        return weakref.ref(thing, lambda dead: log.append(f"weak {dead() is None}"))

    kept = make()
    done = diagnostic_gc_run()
    assert log == ["weak True", "del"]
    assert kept() is None
    only(f"{Finalized.__qualname__}.itself -> {Finalized.__qualname__}"[:400], done.chains)


def test_a_finalizer_that_resurrects_keeps_its_object() -> None:
    kept: list[Any] = []

    class Phoenix:
        def __del__(self) -> None:
            kept.append(self)

    def make() -> None:
        thing = Phoenix()
        thing.itself = thing  # type: ignore[attr-defined]

    make()
    done = diagnostic_gc_run()
    assert all("Phoenix" not in each.name for each in done.types)
    assert kept[0].itself is kept[0]


def test_none_of_the_programs_code_runs_while_garbage_is_looked_at() -> None:
    called: list[str] = []

    def noting(name: str) -> Any:
        def method(self: Any, *args: Any) -> Any:
            called.append(name)
            raise RuntimeError(name)

        return method

    hooks = ("__getattribute__", "__getattr__", "__eq__", "__hash__", "__iter__", "__len__", "__bool__", "__repr__")
    Meta = type("Meta", (type,), {name: noting(f"meta {name}") for name in ("__eq__", "__hash__", "__repr__")})
    bodies: list[tuple[type, ...]] = [(), (dict,), (list,), (tuple,), (set,)]
    for bases in bodies:
        namespace: dict[str, Any] = {name: noting(name) for name in hooks if bases != (set,) or name != "__hash__"}
        namespace["__class__"] = property(noting("__class__"))
        kind = Meta("Hostile", bases, namespace)
        thing = kind.__new__(kind)
        object.__setattr__(thing, "itself", thing)
        del thing, kind, namespace
    called.clear()
    done = diagnostic_gc_run()
    assert called == []
    assert any("Hostile.itself -> Hostile" in chain.path for chain in done.chains), done
    assert done.incomplete == ()


def test_a_proxy_whose_dict_is_another_objects_is_not_asked() -> None:
    class Proxy:
        @property
        def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
            raise RuntimeError("not to be called")

    thing = Proxy()
    object.__setattr__(thing, "itself", thing)
    del thing
    done = diagnostic_gc_run()
    assert done.incomplete == ()
    assert any(chain.path.endswith("Proxy.<internal> -> " + Proxy.__qualname__) for chain in done.chains)


# --- bounds -----------------------------------------------------------------------------------------------------


def test_bounds_of_number_and_time_are_told() -> None:
    tree(200)
    done = diagnostic_gc_run(max_objects=100)
    assert done.examined == 100
    assert done.incomplete[0] == "only the first 100 of 800 objects were looked at for cycles"
    assert sum(each.count for each in done.types) == 800, "types are counted all the same"
    tree(200)
    done = diagnostic_gc_run(max_seconds=0)
    assert any(reason.startswith("out of time") for reason in done.incomplete)
    assert done.total_collected == 800
    assert gc.collect() == 0


def test_a_chain_of_a_hundred_thousand_objects_needs_no_deep_recursion() -> None:
    first = last = Slotted()
    for _ in range(50_000):
        last.other = Slotted()
        last = last.other
    last.other = first
    gc.collect()
    del first, last
    done = diagnostic_gc_run(max_seconds=30)
    assert (done.cycles, done.objects_in_cycles) == (1, 50_001)
    assert [(each.path, each.count) for each in done.holders] == [("Slotted.other -> Slotted", 2000)]
    assert "holders were counted on a part of the objects" in done.incomplete


def test_components_are_those_of_an_independent_search() -> None:
    """Against reachability computed the plain way, on graphs made from a fixed seed."""
    import random

    random.seed(4)
    for size in (5, 12, 30):
        nodes: list[list[Any]] = [[] for _ in range(size)]
        edges = {(random.randrange(size), random.randrange(size)) for _ in range(int(size * 1.3))}
        for source, target in edges:
            nodes[source].append(nodes[target])
        reach = {node: {target for source, target in edges if source == node} for node in range(size)}
        for _ in range(size):
            for node in range(size):
                reach[node] |= {far for near in reach[node] for far in reach[near]}
        expected = {
            frozenset(other for other in range(size) if other in reach[node] and node in reach[other])
            for node in range(size)
            if node in reach[node]
        }
        budget = cycle_graph.Budget(60)
        found = cycle_graph._Graph(nodes, budget).components(budget)
        assert {frozenset(component) for component in found} == expected
        for node in nodes:
            node.clear()


@pytest.mark.parametrize("wrong", [{"max_seconds": -1}, {"max_seconds": float("nan")}, {"max_objects": -1}])
def test_a_bound_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        diagnostic_gc_run(**wrong)


# --- the collector as it was found ------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, gc.DEBUG_SAVEALL, gc.DEBUG_SAVEALL | gc.DEBUG_UNCOLLECTABLE])
@pytest.mark.parametrize("enabled", [True, False])
def test_flags_garbage_and_switch_are_as_found(flags: int, enabled: bool) -> None:
    own = [object(), ["kept"], Node()]
    gc.garbage.extend(own)
    gc.set_debug(flags)
    (gc.enable if enabled else gc.disable)()
    try:
        tree()
        done = diagnostic_gc_run()
        assert gc.get_debug() == flags
        assert gc.isenabled() is enabled
        assert len(gc.garbage) == 3
        assert all(one is other for one, other in zip(gc.garbage, own, strict=True))
        assert done.total_collected >= 40
        assert done.freed >= 40
    finally:
        gc.disable()
        gc.set_debug(0)
        gc.garbage.clear()


def test_a_replaced_gc_garbage_is_seen_through() -> None:
    real = gc.garbage
    real.append("kept")
    gc.garbage = []
    gc.unfreeze()  # frozen, the list could not be found
    try:
        tree()
        done = diagnostic_gc_run()
        only("Node.children[list] -> Node.parent -> Node", done.chains)
        assert real == ["kept"]
        assert gc.garbage == []
    finally:
        gc.garbage = real
        real.clear()


def test_frozen_objects_are_left_alone_and_counted() -> None:
    thing = Thing()
    thing.itself = thing
    watch = weakref.ref(thing)
    gc.freeze()
    try:
        del thing
        done = diagnostic_gc_run()
        assert done.frozen > 1000
        assert watch() is not None
    finally:
        gc.unfreeze()
    diagnostic_gc_run()
    gc.freeze()  # for the fixture
    assert watch() is None


class Interrupted(BaseException):
    pass


OURS = {
    module.__file__
    for module in (garbage, diagnostics, cycle_graph, cycle_labels, cycle_suspended, diagnostics_record, events)
}


Place = tuple[str, int, int]
"""File, line, and the how many-th time that it is executed."""


def places_of_a_run() -> list[Place]:
    """Each line of ours that one run executes the first time; of those that change the collector also the last."""
    counts: collections.Counter[tuple[str, int]] = collections.Counter()

    def tracer(frame: Any, event: str, _arg: Any) -> Any:
        if frame.f_code.co_filename not in OURS:
            return None
        if event == "line":
            counts[frame.f_code.co_filename, frame.f_lineno] += 1
        return tracer

    with_tracing(tracer)
    return [
        (*line, which)
        for line, count in counts.items()
        for which in ({1, count} if line[0] == garbage.__file__ else {1})
    ]


def with_tracing(tracer: Any) -> None:
    old = sys.gettrace()
    Node(Node())
    sys.settrace(tracer)
    try:
        diagnostic_gc_run()
    finally:
        sys.settrace(old)


def interrupt_at(place: Place) -> None:
    seen = 0

    def tracer(frame: Any, event: str, _arg: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in OURS:
            return None
        if event == "line" and (frame.f_code.co_filename, frame.f_lineno) == place[:2]:
            seen += 1
            if seen == place[2]:
                raise Interrupted
        return tracer

    with_tracing(tracer)


def test_an_exception_at_any_line_leaves_everything_as_found() -> None:
    places = places_of_a_run()
    assert len(places) > 200
    own = ["kept"]
    gc.garbage.extend(own)
    gc.enable()
    raised = 0
    try:
        for place in places:
            try:
                interrupt_at(place)
            except Interrupted:
                raised += 1
            assert gc.get_debug() == 0, place
            assert gc.garbage == own, place
            assert gc.isenabled(), place
            assert garbage._claims == {}, place
            assert garbage._open is None, place
            gc.collect()  # what the interrupted run has let go of
    finally:
        gc.garbage.clear()
    assert raised > len(places) * 0.8
    diagnostic_gc_run()


def test_an_exception_from_another_thread_at_any_time_leaves_everything_as_found() -> None:
    """As a timeout or Ctrl-C comes: between two steps of the interpreter."""
    stop, interrupted, runs = threading.Event(), 0, 0
    gc.enable()

    def runner() -> None:
        nonlocal interrupted, runs
        while not stop.is_set():
            try:
                for _ in range(20):
                    Node(Node())
                diagnostic_gc_run()
                runs += 1
            except Interrupted:
                interrupted += 1

    def guarded() -> None:
        while not stop.is_set():
            try:
                runner()
            except Interrupted:
                continue

    thread = threading.Thread(target=guarded)
    thread.start()
    assert thread.ident is not None
    pause = threading.Event()
    try:
        for number in range(400):
            pause.wait(0.0005 + number % 7 * 0.0003)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupted))
    finally:
        stop.set()
        for _ in range(100):
            thread.join(0.3)
            if not thread.is_alive():
                break
    assert not thread.is_alive()
    assert interrupted
    assert gc.get_debug() == 0
    assert gc.isenabled()
    assert gc.garbage == []
    assert garbage._claims == {}
    diagnostic_gc_run()


# --- several at once --------------------------------------------------------------------------------------------


def test_two_threads_at_once_fifty_times() -> None:
    results: list[DiagnosticRun] = []
    errors: list[BaseException] = []
    begin = threading.Barrier(2)

    def runner() -> None:
        try:
            begin.wait(30)
            for _ in range(25):
                for _ in range(10):
                    Node(Node())
                results.append(diagnostic_gc_run())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=runner) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(results) == 50
    assert sum(run.total_collected for run in results) >= 50 * 40, "none lost, whoever found it"
    assert gc.garbage == []


def test_objects_that_other_threads_make_meanwhile_are_not_touched() -> None:
    stop = threading.Event()
    wrong: list[str] = []

    def maker() -> None:
        while not stop.is_set():
            root = Node()
            for _ in range(50):
                Node(root)
            if len(root.children) != 50 or any(child.parent is not root for child in root.children):
                wrong.append("broken")

    def hook(_phase: str, _info: dict[str, int]) -> None:
        threading.Event().wait(0.0001)  # lets others run in the middle of a collection, as any hook may

    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    gc.callbacks.append(hook)
    gc.enable()
    threads = [threading.Thread(target=maker) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            diagnostic_gc_run(max_seconds=0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        gc.disable()
        gc.callbacks.remove(hook)
        sys.setswitchinterval(interval)
    assert wrong == []
    gc.collect()


def test_a_run_that_waits_too_long_and_one_within_another_get_clear_answers() -> None:
    answers: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    class Slow:
        def __del__(self) -> None:
            try:
                diagnostic_gc_run()
            except MonitoringError as error:
                answers.append(str(error))
            inside.set()
            go_on.wait(30)

    def make() -> None:
        thing = Slow()
        thing.itself = thing  # type: ignore[attr-defined]

    make()
    thread = threading.Thread(target=diagnostic_gc_run)
    thread.start()
    try:
        assert inside.wait(30)
        with pytest.raises(MonitoringError, match=r"another diagnostic_gc_run\(\) .* wait_seconds="):
            diagnostic_gc_run(wait_seconds=0.05)
    finally:
        go_on.set()
        thread.join(30)
    assert "call it from elsewhere" in answers[0]
    diagnostic_gc_run()


# --- event loops ------------------------------------------------------------------------------------------------


def test_on_an_event_loop_the_call_names_the_mend_and_the_mend_works() -> None:
    async def main() -> DiagnosticRun:
        with pytest.raises(MonitoringError, match=r"await diagnostic_gc_run_async\(\)"):
            diagnostic_gc_run()
        tree()
        return await diagnostic_gc_run_async()

    done = asyncio.run(main())
    only("Node.children[list] -> Node.parent -> Node", done.chains)


def test_a_cancelled_run_stops_looking_and_frees_what_it_found() -> None:
    looking = threading.Event()

    async def main() -> None:
        for _ in range(3000):
            Node(Node())
        task = asyncio.create_task(diagnostic_gc_run_async(max_seconds=60))
        await asyncio.to_thread(looking.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def saw(phase: str, _info: dict[str, int]) -> None:
        looking.set()

    gc.callbacks.append(saw)
    try:
        asyncio.run(main())  # waits for the thread
    finally:
        gc.callbacks.remove(saw)
    assert garbage._claims == {}


# --- fork -------------------------------------------------------------------------------------------------------

FORKING = """
import gc, os, sys, threading
from otel_memory import diagnostic_gc_run

inside, forked = threading.Event(), threading.Event()

class Slow:
    def __del__(self):
        inside.set()
        assert forked.wait(30)

def make():
    thing = Slow()
    thing.itself = thing

gc.garbage.append("kept")
make()
thread = threading.Thread(target=diagnostic_gc_run)
thread.start()
assert inside.wait(30)
assert gc.get_debug() & gc.DEBUG_SAVEALL, "the window is open"
child = os.fork()
if child == 0:
    from otel_memory.probe import garbage
    state = gc.get_debug(), gc.isenabled(), gc.garbage, garbage._claims, garbage._open
    os._exit(0 if state == (0, True, ["kept"], {}, None) else 7)
forked.set()
thread.join(30)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print("child", status, "parent", gc.get_debug(), gc.garbage)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_forked_in_the_middle_has_flags_and_garbage_as_found() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.stdout == "child 0 parent 0 ['kept']\n", done.stderr


def test_a_collection_of_another_thread_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "OTHERS_SECONDS", 0.05)
    inside, go_on = threading.Event(), threading.Event()

    class Slow:
        def __del__(self) -> None:
            inside.set()
            go_on.wait(30)

    def make() -> None:
        thing = Slow()
        thing.itself = thing  # type: ignore[attr-defined]

    make()
    thread = threading.Thread(target=gc.collect)
    thread.start()
    try:
        assert inside.wait(30)
        with pytest.raises(MonitoringError, match="another thread's garbage collection"):
            diagnostic_gc_run()
        assert gc.get_debug() == 0
    finally:
        go_on.set()
        thread.join(30)


# --- record -----------------------------------------------------------------------------------------------------


def test_each_run_is_one_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    tree()
    first = diagnostic_gc_run(record=path)
    diagnostic_gc_run(record=str(path))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2
    assert lines[0] == json.loads(json.dumps(first.to_dict()))
    assert lines[0]["holders"][0] == {"path": "Node.children[list] -> Node", "count": 10}
    assert lines[0]["before"]["rss_bytes"] > 0
    assert lines[0]["pid"] == os.getpid()


def test_a_record_that_can_not_be_written_costs_the_line_and_not_the_result(tmp_path: Path) -> None:
    done = diagnostic_gc_run(record=tmp_path / "missing" / "runs.jsonl")
    assert done.record_error is not None
    assert "FileNotFoundError" in done.record_error


def test_the_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    for number in range(100):
        diagnostics_record.append(path, {"number": number, "filling": "x" * 80}, max_bytes=1000)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["runs.jsonl", "runs.jsonl.1"]
    assert all(each.stat().st_size <= 1000 for each in tmp_path.iterdir())
    kept = [json.loads(line)["number"] for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert kept[-1] == 99


APPENDING = """
import sys
from otel_memory.probe.diagnostics_record import append
for number in range(300):
    append(sys.argv[1], {"process": sys.argv[2], "number": number, "filling": "x" * 200}, max_bytes=20_000)
"""


def test_several_processes_append_whole_lines_and_rotate_once(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    processes = [
        subprocess.Popen([sys.executable, "-c", APPENDING, str(path), str(number)], cwd=ROOT) for number in range(3)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    for file in tmp_path.iterdir():
        # While the one that moves the file is held up, the others go on appending to it: never waiting costs exactness.
        assert file.stat().st_size <= 2 * 20_000
        for line in file.read_text().splitlines():
            assert len(json.loads(line)["filling"]) == 200
    assert (tmp_path / "runs.jsonl.1").stat().st_size > 15_000, "it was full when it was moved"


# --- by itself --------------------------------------------------------------------------------------------------

GROWTH = Rule("mine", names.PROCESS_MEMORY_USAGE, "percent_change", 20, window_seconds=60)
LEVEL = Rule("level", names.PROCESS_MEMORY_USAGE, "greater_than", 1)
THREADS = Rule("threads", names.PROCESS_THREAD_COUNT, "growth_per_second", 1, window_seconds=60)


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background(Ledger())
    yield background
    background.stop(30)


def feature(background: Background, **settings: Any) -> DiagnosticsFeature:
    around: Any = Surroundings(Settings(**settings), None, events.emit, background, Ledger())  # type: ignore[arg-type]
    return DiagnosticsFeature(around)


def runs_of(made: DiagnosticsFeature) -> int:
    return int(made.status()["runs"])


def test_a_schedule_runs_and_a_long_pause_makes_it_rarer(
    background: Background, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.jsonl"
    made = feature(background, diagnostic_gc=10.0, diagnostic_gc_file=str(path))
    try:
        made.tick(100)
        made.tick(109)
        assert runs_of(made) == 0
        made.tick(110)
        assert wait_until(lambda: runs_of(made) == 1)
        document = json.loads(path.read_text())
        assert document["reason"] == "schedule"
        made._not_before = 130  # as after pauses of 0.2 s
        made.tick(121)
        made.tick(131)
        assert wait_until(lambda: runs_of(made) == 2)
        status = made.status()
        assert json.dumps(status)
        assert status["when"] == 10.0
        assert diagnostic_gc_run().record_error is None
        assert len(path.read_text().splitlines()) == 3, "a run by hand is recorded, too"
    finally:
        made.close()
    diagnostic_gc_run()
    assert len(path.read_text().splitlines()) == 3


def test_growth_runs_once_for_many_crossings_and_only_of_rules_about_growth_of_memory(background: Background) -> None:
    made = feature(background, diagnostic_gc="growth")
    for rule in (LEVEL, THREADS):
        made.crossing(Crossing(rule, "crossed", 0, 1, 1, 1))
    made.crossing(Crossing(GROWTH, "recovered", 0, 1, 1, 1))
    made.tick(1e9)
    made.crossing(Crossing(GROWTH, "crossed", 0, 30, 30, 1))
    made.crossing(Crossing(GROWTH, "crossed", 0, 30, 30, 2))
    assert wait_until(lambda: runs_of(made) == 1)
    background.stop(30)
    assert runs_of(made) == 1
    assert made.status()["last"]["reason"] == "growth"
    made.after_fork()
    assert made.status()["last"] is None


@pytest.mark.parametrize(
    ("text", "value"), [("none", None), ("growth", "growth"), ("10min", 600.0), ("5000", 5.0), ("GROWTH ", "growth")]
)
def test_the_setting(text: str, value: Any) -> None:
    assert Settings.load({"OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC": text}).diagnostic_gc == value


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(SettingsError, match=r"OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC='often'.*or growth, or none"):
        Settings.load({"OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC": "often"})


def test_nothing_but_names_leaves_in_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str, dict[str, Any]]] = []
    monkeypatch.setattr(
        events, "emit", lambda name, body, attributes, **_: bool(told.append((name, body, dict(attributes))))
    )
    tree()
    diagnostic_gc_run()
    ((name, body, attributes),) = told
    assert name == names.EVENT_DIAGNOSTIC_GC
    assert "most through Node.children[list] -> Node" in body
    declared = names.EVENTS[name]
    assert {*attributes, names.PROCESS_PID} <= {*declared.attributes}
    assert {*declared.attributes} - {*declared.optional} <= {*attributes, names.PROCESS_PID}
    assert attributes[names.DIAGNOSTIC_GC_HOLDERS] == ["Node.children[list] -> Node (10)", "Node.parent -> Node (10)"]
