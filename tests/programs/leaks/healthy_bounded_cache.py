"""Healthy: a cache that fills to its bound, and from then on drops one entry for each new one."""

import functools

from requests_loop import serve


@functools.lru_cache(maxsize=100)
def render(number, size):
    return "x" * size


serve(render, description=__doc__)
