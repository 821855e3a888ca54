"""Workers of ``multiprocessing`` and ``concurrent.futures`` by every way of starting them."""

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor


def instrument():
    """For workers that are not forks: the launcher prepared the first process only."""
    from opentelemetry.instrumentation.auto_instrumentation import initialize

    initialize()


def work(megabytes):
    ballast = b"x" * (megabytes * 1_000_000)
    from otel_memory.probe import lifecycle

    time.sleep(0.8)  # long enough to export
    if lifecycle.running_probe() is None:
        return {"pid": os.getpid(), "probe": False}
    from own import look

    return {"probe": True, "held": len(ballast), **look("worker", jobs=False)}


if __name__ == "__main__":
    from own import look, say

    method, by_hand = sys.argv[1], sys.argv[2] == "by hand"
    context = multiprocessing.get_context(method)
    prepare = {"initializer": instrument} if by_hand else {}
    with ProcessPoolExecutor(2, mp_context=context, **prepare) as executor:
        for one in executor.map(work, [20, 120]):
            say(one)
    with context.Pool(2, **prepare) as pool:
        for one in pool.map(work, [20, 120], chunksize=1):
            say(one)
    process = context.Process(target=os.getpid)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    say({"probe": True, **look("parent")})
