"""Forks at chosen moments of the probe's work. A child and a grandchild then say what they find out of themselves.

One moment is played in this process; of several, each in a fork of it, so that none has to follow another.
"""

import gc
import os
import sys
import threading
import time
import tracemalloc

from own import in_child, look, reap, say, until

from otel_memory import diagnostic_gc_run, memory_breakdown
from otel_memory.probe import census, garbage, lifecycle
from otel_memory.probe.traced import TRACING

probe = lifecycle.running_probe()
inside, leave = threading.Event(), threading.Event()
held = [bytes(200) for _ in range(50_000)]  # for a census to go through


def stay(*_):
    """What a thread of the parent hangs in at the moment of the fork."""
    if os.getpid() == parent:
        inside.set()
        leave.wait(30)


def collecting():
    """The SDK's reader is in an observable callback, with the SDK's locks held."""
    from opentelemetry import metrics

    metrics.get_meter("app").create_observable_gauge("slow", [lambda _: stay() or []])


def ticking():
    """The sampler is in the middle of a beat."""
    probe._sampler._refresh += (("test", stay),)


def calling_out():
    """The sampler hands something to the SDK."""
    probe._sampler._drains += (("test", stay),)


def job():
    """The background thread works, and has more to do."""
    until(lambda: probe._background.submit("hangs", stay), "the job is taken")
    for number in range(20):
        probe._background.submit(f"waits {number}", lambda: None)


def tracing():
    """A burst traces."""

    def burst():
        use = TRACING.begin(4)
        stay()
        TRACING.end(use)

    until(lambda: probe._background.submit("burst", burst), "the job is taken")


class Hangs:
    """Cyclic garbage whose finalizer hangs: a collection then takes as long."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        stay()


def save_all():
    """A diagnostic collection is under way, with DEBUG_SAVEALL set."""
    gc.disable()
    Hangs()
    threading.Thread(target=diagnostic_gc_run, daemon=True).start()


def over_and_over(work):
    def loop():
        while not leave.is_set():
            work()
            inside.set()

    threading.Thread(target=loop, daemon=True).start()


def breakdown():
    over_and_over(memory_breakdown)


def counting():
    over_and_over(lambda: census.take(max_pause_seconds=10))


def cleaning():
    from otel_memory import cleanup

    over_and_over(lambda: cleanup(aggressive=True))


def starting_and_stopping():
    """Another probe comes and goes, as an application that instruments by hand may do it."""
    other = lifecycle.Probe(probe._settings)

    def cycle():
        other.start()
        other.stop()

    over_and_over(cycle)


def others_tracing():
    """The application itself traces, and goes on doing so in its children."""
    tracemalloc.start()
    tracing()


REPEATED = {breakdown, counting, cleaning, starting_and_stopping}  # no single moment: several tries


def child():
    say(look(f"{playing} child"))
    reap(in_child(lambda: say(look(f"{playing} grandchild"))))


def play(name):
    global parent, playing
    parent, playing, moment = os.getpid(), name, globals()[name]
    moment()
    assert inside.wait(30), "the moment did not come"
    for _ in range(6 if moment in REPEATED else 1):
        reap(in_child(child))
        time.sleep(0.003)
    leave.set()
    until(lambda: not garbage._claims, "the diagnostic run ends")
    gc.enable()
    if moment is not others_tracing:
        until(lambda: not tracemalloc.is_tracing(), "tracing ends")
    say(look(f"{name} parent"))


if len(sys.argv) == 2:
    play(sys.argv[1])
else:
    for name in sys.argv[1:]:
        reap(in_child(lambda: play(name)))
