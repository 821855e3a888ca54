"""Fragments the C heap: every buffer is cut down to what it needs, and what is cut off is too small for the next one.

The messages become a little longer all the time, so that no hole ever fits again.
"""

import ctypes

from requests_loop import serve

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.realloc.restype = ctypes.c_void_p
libc.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def transcode(number, size):
    longest = 4_000 + 48 * number
    buffers = [libc.malloc(longest) for _ in range(max(2, size // longest))]
    for buffer in buffers:
        ctypes.memset(buffer, 1, longest)
    for buffer in buffers:
        libc.realloc(buffer, 64)


serve(transcode, kilobytes_a_request=60, kilobytes_a_second=3000, description=__doc__)
