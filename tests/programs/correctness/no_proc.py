"""A process that finds no ``/proc``. With ``psutil`` in the arguments psutil still reads one elsewhere, as it reads
the system by other ways on macOS and Windows."""

import gc
import os
import sys
import time

import psutil

assert not os.path.exists("/proc/self")
if "psutil" in sys.argv:
    psutil.PROCFS_PATH = sys.argv[2]

from opentelemetry.instrumentation.auto_instrumentation import initialize  # noqa: E402

initialize(swallow_exceptions=False)

from own import in_child, instance_id, reap, say, until  # noqa: E402

import otel_memory  # noqa: E402
from otel_memory import names  # noqa: E402
from otel_memory.probe import lifecycle  # noqa: E402


@otel_memory.monitor_memory
def keep(size):
    kept.append(b"x" * size)


kept = []


def tell(where):
    probe = lifecycle.running_probe()
    before = probe._sampler.ticks
    until(lambda: probe._sampler.ticks > before + 3, "beats")
    with otel_memory.MemoryTracker("block") as tracker:
        keep(20_000_000)
    ring = []
    ring.append(ring)
    del ring
    gc.collect()
    time.sleep(1)  # features work
    reading, limits = probe._parts.process.read(), probe._parts.limits.latest()
    (info,) = probe._parts.process._observe_info()
    psutils = psutil.Process().memory_info().rss if "psutil" in sys.argv else None
    say(
        {
            "where": where,
            "pid": os.getpid(),
            "told_pid": info.attributes[names.PROCESS_PID],
            "told": reading.rss_bytes,
            "psutils": psutils,
            "slow": probe._parts.process.read_slow().private_bytes,
            "limit": limits.kind,
            "delta": tracker.delta_bytes,
            "instance": instance_id(),
            "failures": probe.ledger.failures,
            "freed": otel_memory.cleanup(aggressive=True) is not None,
        }
    )


tell("parent")
reap(in_child(lambda: tell("child")))
