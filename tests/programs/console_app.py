"""An application with no line about telemetry but one decorator: spans, a tracked function, memory up and down."""

import fractions
import gc
import time

from opentelemetry import trace

from otel_memory import MemoryTracker, cleanup, evict, monitor_memory, register_evictor

tracer = trace.get_tracer("console_app")


@monitor_memory(peak=True, trace_malloc=True, log_level="WARNING")
def load_catalog():
    temporary = b"y" * 16_000_000
    return [b"x" * 1_000_000 for _ in range(64)], len(temporary)


@monitor_memory
def fails():
    raise ValueError("on purpose")


def forget():
    """What an evictor does."""


def main():
    register_evictor("catalog", forget)
    evict()
    cleanup()
    halves = [fractions.Fraction(1, 2) for _ in range(5)]
    with tracer.start_as_current_span("request"):
        catalog, _ = load_catalog()
    gc.collect()
    time.sleep(1.0)  # the sampler sees the memory go up …
    with tracer.start_as_current_span("clean up"), MemoryTracker("clean_up"):
        catalog.clear()
        gc.collect()
    del halves
    with tracer.start_as_current_span("failing"):
        try:
            fails()
        except ValueError:
            pass
    time.sleep(1.5)  # … and down


main()
