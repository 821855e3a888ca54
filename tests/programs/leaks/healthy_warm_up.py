"""Healthy: loads its tables in the first seconds, and then serves from them."""

from requests_loop import serve

tables = []


def handle(number, size):
    if len(tables) < 40:
        tables.append([f"row {number} {row}" for row in range(size // 100)])
    return sum(len(table) for table in tables) + len("x" * size)


serve(handle, description=__doc__)
