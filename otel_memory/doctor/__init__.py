"""``otel-memory doctor``: is this environment fit to tell of its memory, and if not, what mends it.

Runs in the application's own environment and needs nothing but the base installation. Looks, never changes;
the one thing it sends is an empty export request to the configured endpoint.
"""

from otel_memory.doctor.command import main

__all__ = ["main"]
