"""Ends in every way there is, each in a process of its own, and says how the kernel saw it end."""

import atexit
import os
import signal
import sys
import threading
import time

from own import say

from otel_memory import MemoryTracker, cleanup, monitor_memory
from otel_memory.probe import lifecycle


@monitor_memory
def busy():
    return bytes(10_000)


@monitor_memory
def half_way():
    yield busy()
    yield busy()


def keep_busy():
    while True:
        busy()
        time.sleep(0.001)


def silent():
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def falls_off():
    """Comes to its end with a generator half-way and an open block."""
    global generator
    generator = half_way()
    next(generator)
    MemoryTracker("open").__enter__()


def status():
    sys.exit(3)


def at_once():
    os._exit(4)


def raises():
    silent()  # the traceback is as it should be
    raise ValueError("as the application does")


def terminated():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted():
    silent()
    signal.raise_signal(signal.SIGINT)


def handled():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def daemon_threads():
    for _ in range(4):
        threading.Thread(target=keep_busy, daemon=True).start()
    time.sleep(0.1)


def threads_that_outlive_it():
    for _ in range(4):
        threading.Thread(target=lambda: (time.sleep(0.2), busy(), cleanup(), time.sleep(0.1))).start()


def late_work():
    atexit.register(busy)
    atexit.register(cleanup)
    atexit.register(lambda: time.sleep(0.1))


def forks_last():
    atexit.register(lambda: os.fork() or os._exit(0))


WAYS = (
    *(falls_off, status, at_once, raises, terminated, killed, interrupted, handled),
    *(daemon_threads, threads_that_outlive_it, late_work, forks_last),
)

signal.signal(signal.SIGINT, signal.default_int_handler)
say({"probe": lifecycle.running_probe() is not None})
began, children = time.monotonic(), {}
for way in WAYS:
    pid = os.fork()
    if not pid:
        time.sleep(0.02)
        way()
        break
    children[pid] = way.__name__
else:
    for pid, name in children.items():
        while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if time.monotonic() - began > 60:
                os.kill(pid, signal.SIGABRT)
            time.sleep(0.01)
        say({name: os.waitpid(pid, 0)[1]})
    say({"parent": 0})
