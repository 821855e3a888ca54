"""Hundreds of short-lived children from several threads, while other threads collect, start programs and take locks."""

import gc
import os
import subprocess
import sys
import threading

from own import in_child, look, reap, say

from otel_memory.probe import lifecycle, sdk_fork

CHILDREN, WHOLE_EVERY = int(sys.argv[1]), 20
probe = lifecycle.running_probe()
over = threading.Event()
wrong = []
held = []


def work():
    while not over.is_set():
        ring = []
        ring.append(ring)
        held.append(bytes(2_000))
        gc.collect(0)
        over.wait(0.001)


def glance():
    """The short-lived child: its own numbers, its own thread, and away."""
    one = lifecycle.running_probe()
    assert one._ticker._thread.is_alive()
    assert one._parts.process.read().rss_bytes > 0
    assert one._parts.process.rss() > 0


def fork(count):
    try:
        for number in range(count):
            reap(in_child((lambda: say(look("child"))) if number % WHOLE_EVERY == 0 else glance))
    except BaseException as error:
        wrong.append(repr(error))


def start_programs():
    """``subprocess`` starts programs without Python's hooks for forks: nothing of ours may run for them."""
    try:
        while not over.is_set():
            subprocess.run(["/bin/true"], check=True)
    except BaseException as error:
        wrong.append(repr(error))


workers = [threading.Thread(target=work) for _ in range(2)] + [threading.Thread(target=start_programs)]
forkers = [threading.Thread(target=fork, args=(CHILDREN // 2,)) for _ in range(2)]
for thread in workers + forkers:
    thread.start()
for thread in forkers:
    thread.join()
over.set()
for thread in workers:
    thread.join()
assert not wrong, wrong

holds = []
made = sdk_fork.Hold
sdk_fork.Hold = lambda: holds.append(os.getpid()) or made()
subprocess.run(["/bin/true"], check=True)
assert not holds, "a started program is no fork"
reap(in_child(lambda: None))
assert holds == [os.getpid()]
say(look("parent"))
