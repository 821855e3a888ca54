"""Leaks through a cache without a bound: the key holds a time stamp, so that nothing is ever found in it again."""

import functools

from requests_loop import serve


@functools.lru_cache(maxsize=None)  # noqa: UP033
def render_page(customer, stamp, size):
    return f"<html>{customer}{stamp}" + "x" * size


def handle(number, size):
    for part in range(4):
        render_page(f"customer-{number % 50}", number * 4 + part, size // 4)


serve(handle, description=__doc__)
