"""Looking at all objects in pieces: the same answer as in one, and nothing of it stays in the child of a fork."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections import deque
from typing import Any

import pytest

from otel_memory.probe import listing

HELD: dict[str, Any] = {}
MANY = 10**9
"""As if the collector knew so many objects that a search must be cut up."""


class Thing:
    """Something to look for."""


@pytest.mark.parametrize(
    "holder",
    [
        lambda thing: [thing],
        lambda thing: {"key": thing},
        lambda thing: (thing, 1),
        lambda thing: deque([thing]),
        lambda thing: {thing},
        lambda thing: [*range(20_000), thing],
        lambda thing: dict.fromkeys(range(20_000), thing),
        lambda thing: lambda: thing,
    ],
    ids=["list", "dict", "tuple", "deque", "set", "large list", "large dict", "cell"],
)
def test_in_pieces_the_same_referrers_are_found(holder: Any) -> None:
    thing = Thing()
    HELD["holder"] = holder(thing)
    things = [thing]
    rests = 0

    def rest() -> None:
        nonlocal rests
        rests += 1

    direct, _ = listing.referrers(things, 0)
    pieces, _ = listing.referrers(things, MANY, rest)
    assert rests > 0
    ours = {id(things), id(sys._getframe())}
    assert {id(each) for each in pieces} - ours == {id(each) for each in direct} - ours
    HELD.clear()


def test_all_are_listed_and_nothing_stays() -> None:
    thing = [Thing()]
    with listing.Listing() as objects:
        found = sum(each is thing for chunk in objects for each in chunk)
    assert found == 1
    assert objects.total > 10_000
    assert objects.left == 0
    assert not any(type(each) is list and len(each) > 1_000 for each in gc.get_referrers(thing))


def test_a_fork_breaks_a_listing_off_and_goes_on() -> None:
    looking, forked_soon = threading.Event(), threading.Event()
    broken: list[str] = []

    def look() -> None:
        try:
            with listing.Listing() as objects:
                for _ in objects:
                    looking.set()
                    forked_soon.wait(5)
        except listing.Interrupted as interrupted:
            broken.append(str(interrupted))

    thread = threading.Thread(target=look)
    thread.start()
    assert looking.wait(30)
    threading.Timer(0.05, forked_soon.set).start()
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    thread.join(30)
    assert broken == ["a fork came between"]


def test_nothing_stays_in_the_child_of_a_fork() -> None:
    """Also where the look doesn't break off in time: what it has in hand isn't held in the child for good."""
    program = """
        import gc, os, threading, weakref
        from otel_memory.probe import added, census, listing

        listing.FORK_WAIT_SECONDS = 0.2

        class Big(list):
            pass

        containers = [Big(range(1000)) for _ in range(5)]
        before = census.take(max_pause_seconds=10)
        for each in containers:
            each.extend(range(5000))
        gone = [weakref.ref(each) for each in containers]
        looking, end = threading.Event(), threading.Event()

        def look():
            after = census.take(max_pause_seconds=10, previous=before)
            watched = added.Watched([each.container for each in after.grown])
            targets = listing.Kept(each.container for each in after.grown)
            assert len(targets) >= 5
            with listing.Listing() as objects:
                looking.set()
                end.wait(30)

        thread = threading.Thread(target=look)
        thread.start()
        assert looking.wait(30)
        child = os.fork()
        if child == 0:
            containers.clear()
            del each
            gc.collect()
            os._exit(sum(ref() is not None for ref in gone))
        end.set()
        thread.join()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    argv = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
