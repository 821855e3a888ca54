"""Healthy: makes cycles all the time, which the collector finds in time."""

from requests_loop import serve


class Node:
    def __init__(self):
        self.me = self
        self.load = ["x" * 50]


def handle(number, size):
    for _ in range(size // 100):
        Node()


serve(handle, description=__doc__)
