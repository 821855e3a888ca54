"""Leaks files: every request opens its log with a large buffer and forgets it in a registry."""

import tempfile

from requests_loop import serve

folder = tempfile.TemporaryDirectory()
open_logs = {}


def handle(number, size):
    if len(open_logs) < 900:  # under the usual bound of 1024 descriptors
        log = open(f"{folder.name}/{number}.log", "wb", buffering=size)  # noqa: SIM115
        log.write(b"x" * (size // 2))
        open_logs[number] = log


serve(handle, kilobytes_a_request=60, kilobytes_a_second=2000, description=__doc__)
open_logs.clear()
