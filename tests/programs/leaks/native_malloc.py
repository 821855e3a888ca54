"""Leaks memory that Python knows nothing of: an extension calls malloc and forgets to call free."""

import ctypes

from requests_loop import serve

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]


def decode(number, size):
    for _ in range(10):
        block = libc.malloc(size // 10)
        ctypes.memset(block, 1, size // 10)


serve(decode, description=__doc__)
