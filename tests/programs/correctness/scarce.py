"""A process that runs out of address space, descriptors or threads: when the probe starts, or later on."""

import os
import resource
import sys
import threading
import time

WHAT, WHEN = sys.argv[1:]
LIMIT = {
    "address_space": resource.RLIMIT_AS,
    "descriptors": resource.RLIMIT_NOFILE,
    "threads": resource.RLIMIT_NPROC,
}[WHAT]
MARGIN = 6_000_000  # less than the stack of a thread
SCARCE_SECONDS = 1.5
before = resource.getrlimit(LIMIT)
taken = []


def exhaust():
    """Leave next to nothing of it."""
    if WHAT == "address_space":
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[0])
        resource.setrlimit(LIMIT, (pages * resource.getpagesize() + MARGIN, before[1]))
        size = 1_000_000
        while size > 50_000:
            try:
                taken.append(bytearray(size))
            except MemoryError:
                size //= 2
    elif WHAT == "descriptors":
        resource.setrlimit(LIMIT, (256, before[1]))
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
    else:
        if os.getuid() == 0:
            os.setresuid(65534, 0, 0)  # the kernel refuses root nothing
        resource.setrlimit(LIMIT, (1, before[1]))
        try:
            threading.Thread(target=print).start()
        except RuntimeError:
            pass
        else:
            sys.exit("a thread could be started")


def relieve():
    resource.setrlimit(LIMIT, before)
    if WHAT == "descriptors":
        for fd in taken:
            os.close(fd)
    taken.clear()


def work():
    """What the application does all the time."""
    import json

    from otel_memory import MemoryTracker, monitor_memory

    @monitor_memory
    def loads():
        return json.loads('{"a": [1, 2, 3]}')

    with MemoryTracker("block"):
        return loads()["a"][2]


def go_on(seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ring = []
        ring.append(ring)
        try:
            if work() != 3:
                sys.exit("an operation gives something else")
        except MemoryError:  # the application's own
            if WHAT != "address_space":
                raise
        time.sleep(0.005)


from own import look, say, until  # noqa: E402

from otel_memory import MemoryInstrumentor, cleanup  # noqa: E402
from otel_memory.probe import lifecycle  # noqa: E402

work()
if WHEN == "start":
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider

    metrics.set_meter_provider(MeterProvider())
    exhaust()
    MemoryInstrumentor().instrument()
    started = lifecycle.running_probe() is not None
    go_on(SCARCE_SECONDS)
    relieve()
    if started:
        MemoryInstrumentor().uninstrument()
    MemoryInstrumentor().instrument()
else:
    probe = lifecycle.running_probe()
    go_on(0.5)
    exhaust()
    ticks, started = probe._sampler.ticks, True
    try:
        cleanup()
    except MemoryError:
        pass
    go_on(SCARCE_SECONDS)
    until(lambda: probe._sampler.ticks > ticks + 3, "the sampler goes on")
    relieve()
    go_on(0.5)
probe = lifecycle.running_probe()
settled, ticks = probe.ledger.failures, probe._sampler.ticks
if WHEN == "later":
    until(lambda: probe._sampler.ticks > ticks + 5, "the sampler goes on")
say({"started": started, "settled": settled, **look("after")})
