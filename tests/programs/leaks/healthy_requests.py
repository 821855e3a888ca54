"""Healthy: requests come and go, each with sessions of its own that live for a while."""

from collections import deque

from requests_loop import serve

sessions = deque()


class Session:
    def __init__(self, number, size):
        self.number = number
        self.basket = [f"item {number} {item}" for item in range(size // 100)]


def handle(number, size):
    sessions.append(Session(number, size))
    if len(sessions) > 60:
        sessions.popleft()


serve(handle, description=__doc__)
