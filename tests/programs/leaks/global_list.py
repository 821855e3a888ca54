"""Leaks through a global: an audit trail that is written and never shortened."""

from requests_loop import serve

AUDIT = []


def record(number, size):
    lines = size // 500
    AUDIT.extend({"user": f"user-{number}", "line": line, "path": f"/orders/{number}/{line}"} for line in range(lines))


serve(record, description=__doc__)
