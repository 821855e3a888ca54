"""Looked at from inside a process: is what the probe here says this process's own, and does it go on working?"""

import gc
import json
import os
import sys
import threading
import time
import tracemalloc

from opentelemetry import metrics

from otel_memory import names
from otel_memory.probe import lifecycle

TICKS_SECONDS = 30.0


def vm_rss():
    with open("/proc/self/status") as status:
        return int(status.read().split("VmRSS:")[1].split("kB")[0]) * 1024


def instance_id():
    return metrics.get_meter_provider()._sdk_config.resource.attributes["service.instance.id"]


def until(condition, what):
    deadline = time.monotonic() + TICKS_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} in process {os.getpid()}")
        time.sleep(0.01)


def look(where, jobs=True):
    """What a process finds out about itself, as a dictionary. Raises where the probe does not work on here."""
    probe = lifecycle.running_probe()
    assert probe is not None, "no probe runs"
    ticker, sampler = probe._ticker, probe._sampler
    assert ticker is not None
    assert ticker._thread.is_alive(), "no sampler's thread"
    before = sampler.ticks
    until(lambda: sampler.ticks >= before + 2, "two ticks")
    if jobs:
        done = threading.Event()
        until(lambda: probe._background.submit("test", done.set) or done.is_set(), "a background job is taken")
        until(done.is_set, "a background job is done")
    (info,) = probe._parts.process._observe_info()
    told, kernels = probe._parts.process.read().rss_bytes, vm_rss()
    assert abs(told - kernels) <= 0.05 * kernels, f"told {told}, the kernel says {kernels}"
    alive = [thread.name for thread in threading.enumerate() if thread.is_alive()]
    ours = sorted(name for name in alive if name.startswith("otel-memory"))
    assert len(ours) == len(set(ours)), ours
    return {
        "where": where,
        "pid": os.getpid(),
        "told_pid": info.attributes[names.PROCESS_PID],
        "rss": told,
        "instance": instance_id(),
        "failures": probe.ledger.failures,
        "tracing": tracemalloc.is_tracing(),
        "gc_flags": gc.get_debug(),
        "gc_enabled": gc.isenabled(),
        "garbage": len(gc.garbage),
    }


def say(document):
    """One write, so that the lines of several processes don't mix."""
    os.write(1, (json.dumps(document) + "\n").encode())


def in_child(work):
    """Fork; ``work()`` in the child, whose status says whether it went well. Returns the child's pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def reap(*pids):
    for pid in pids:
        status = os.waitpid(pid, 0)[1]
        if status:
            sys.exit(f"child {pid} ended with {status}")
