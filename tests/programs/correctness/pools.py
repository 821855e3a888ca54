"""Workers of ``multiprocessing`` and ``concurrent.futures`` by each way of starting them, and a storm of short ones."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

SECONDS = 60


def meet(barrier):
    global both
    both = barrier


def work(megabytes):
    """Done by both workers at the same time, so that each has one."""
    both.wait(SECONDS)
    ballast = b"x" * (megabytes * 1_000_000)
    from opentelemetry import metrics
    from own import look

    told = look("worker", jobs=False)
    metrics.get_meter_provider().force_flush()  # a pool ends its workers by a signal
    return {"held": len(ballast), **told}


def glance(_):
    from otel_memory.probe import lifecycle

    probe = lifecycle.running_probe()
    (info,) = probe._parts.process._observe_info()
    assert probe._ticker._thread.is_alive()
    return os.getpid(), info.attributes["process.pid"], probe._parts.process.read().rss_bytes


def storm(context, children):
    """A new process for each task, forked from a thread of the pool while the other workers work."""
    with context.Pool(4, maxtasksperchild=1) as pool:
        told = pool.map(glance, range(children), chunksize=1)
    assert len({pid for pid, _, _ in told}) == children
    assert all(pid == ours and rss > 10_000_000 for pid, ours, rss in told), told


if __name__ == "__main__":
    from own import look, say

    method = sys.argv[1]
    context = multiprocessing.get_context(method)
    prepare = {"initializer": meet, "initargs": (context.Barrier(2),)}
    if method == "spawn":
        with context.Pool(2, **prepare) as pool:
            told = pool.map(work, [20, 120], chunksize=1)
    else:
        with ProcessPoolExecutor(2, mp_context=context, **prepare) as executor:
            told = list(executor.map(work, [20, 120]))
    for one in told:
        say(one)
    process = context.Process(target=sys.exit, args=(3,))
    process.start()
    process.join(SECONDS)
    assert process.exitcode == 3, process.exitcode
    if method == "fork":
        storm(context, 40)
    say(look("parent"))
