"""Leaks through a global: an audit trail that is written and never shortened."""

from requests_loop import serve

AUDIT = []


def record(number, size):
    for line in range(size // 500):
        AUDIT.append({"user": f"user-{number}", "line": line, "path": f"/orders/{number}/{line}"})


serve(record, description=__doc__)
