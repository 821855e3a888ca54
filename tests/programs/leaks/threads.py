"""Leaks threads: each request starts a poller with a buffer of its own that nobody ever stops."""

import threading

from requests_loop import serve

never = threading.Event()


def poll(buffer):
    never.wait()
    return len(buffer)


def handle(number, size):
    threading.Thread(target=poll, args=(bytearray(b"x") * size,), daemon=True).start()


serve(handle, kilobytes_a_request=100, kilobytes_a_second=2000, description=__doc__)
