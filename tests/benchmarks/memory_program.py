"""What ``bench_memory`` weighs: the web application asked by its own client, busy at first and then ten times a second.

Argument: for how many seconds. Says ``done`` then and waits, with all that it has, until its input ends.
"""

from __future__ import annotations

import sys
import time

from tests.benchmarks.web_app import app

BUSY_REQUESTS = 300
PAUSE_SECONDS = 0.1


def main() -> None:
    """Run."""
    client = app.test_client()
    for _ in range(BUSY_REQUESTS):
        client.get("/shop/5")
    until = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < until:
        client.get("/shop/5")
        time.sleep(PAUSE_SECONDS)
    print("done", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
