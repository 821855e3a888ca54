"""What the programs share: a loop of requests with jitter that ends by itself. No part of what leaks."""

import argparse
import random
import time


def serve(handle, *, kilobytes_a_second=2000, kilobytes_a_request=40, description=""):
    """Call ``handle(number, size)`` until the time is over: ``size`` bytes is what this request may keep."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to run")
    parser.add_argument("--rate", type=float, default=kilobytes_a_second, help="kB/s to leak, about")
    options = parser.parse_args()
    chance = random.Random(7)
    pause = kilobytes_a_request / options.rate
    end = time.monotonic() + options.seconds
    number = 0
    while time.monotonic() < end:
        size = int(kilobytes_a_request * 1000 * chance.uniform(0.6, 1.4))
        handle(number, size)
        number += 1
        time.sleep(pause * chance.uniform(0.5, 1.5))
