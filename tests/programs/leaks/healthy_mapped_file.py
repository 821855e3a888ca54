"""Healthy: reads a large file through a mapping; its pages count as resident, and the kernel may take them back."""

import mmap
import tempfile

from requests_loop import serve

file = tempfile.TemporaryFile()  # noqa: SIM115
file.truncate(200_000_000)
file.write(b"x" * 1_000_000)
mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def handle(number, size):
    begin = number * size % len(mapping)
    return sum(mapping[position] for position in range(begin, min(begin + size, len(mapping)), 4096))


serve(handle, description=__doc__)
