"""Healthy: every second a batch of 24 MB is built, worked on and let go."""

import time

from requests_loop import serve

batch = []
begun = time.monotonic()


def handle(number, size):
    if (time.monotonic() - begun) % 1.5 < 1.0:
        batch.append(bytearray(b"x") * 300_000)
        batch.append([{"row": row} for row in range(300)])
    else:
        batch.clear()


serve(handle, description=__doc__)
