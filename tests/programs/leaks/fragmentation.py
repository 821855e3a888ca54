"""Fragments the C heap: large blocks are freed, and between them stays a small one, so that no hole fits the next.

Each request needs blocks a little larger than all before, frees them, and keeps the small ones.
"""

import ctypes

from requests_loop import serve

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
kept = (ctypes.c_void_p * 1_000_000)()


def transcode(number, size):
    large = 4_000 + 48 * number
    count = max(2, size // large)
    blocks = []
    for index in range(count):
        block = libc.malloc(large)
        ctypes.memset(block, 1, large)
        blocks.append(block)
        kept[(number * 50 + index) % len(kept)] = libc.malloc(40)
    for block in blocks:
        libc.free(block)


serve(transcode, kilobytes_a_request=60, kilobytes_a_second=3000, description=__doc__)
