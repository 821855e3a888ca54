"""The environment variables of the probe, one constant each, for the launcher's ``--help`` and flags.

``opentelemetry-instrument`` makes a command-line flag of every ``OTEL_*`` name in this module and fails to
start when another package defines the same name. So only names with our own prefix may ever stand here.
"""

OTEL_PYTHON_MEMORY_INTERVAL = "OTEL_PYTHON_MEMORY_INTERVAL"
"""Time between two readings: milliseconds, or a number with ``ms``, ``s``, ``min``, ``h``. Default 1000.
At least 100 ms."""

OTEL_PYTHON_MEMORY_SLOW_INTERVAL = "OTEL_PYTHON_MEMORY_SLOW_INTERVAL"
"""Time between two readings of what is dear to read (shared and private memory). Default 30000."""

OTEL_PYTHON_MEMORY_LIMIT = "OTEL_PYTHON_MEMORY_LIMIT"
"""The limit to judge against in place of the one found (cgroup, rlimit, host): bytes, or with a unit such as
``512MiB`` or ``1GB``."""

OTEL_PYTHON_MEMORY_THRESHOLDS = "OTEL_PYTHON_MEMORY_THRESHOLDS"
"""Threshold rules beside the built-in ones, separated by ``;``: ``rss>512MiB:critical; rss+20%/10min; rss>5MB/s;
limit>90%``. The entry ``none`` turns the built-in rules off."""

OTEL_PYTHON_MEMORY_EVENTS = "OTEL_PYTHON_MEMORY_EVENTS"
"""Where events go: ``otlp`` (the application's logger provider, the default) or ``none``."""

OTEL_PYTHON_MEMORY_PRESSURE_LEVELS = "OTEL_PYTHON_MEMORY_PRESSURE_LEVELS"
"""Shares of the limit at which the pressure becomes medium, high, critical. Default ``0.7,0.85,0.95``."""

OTEL_PYTHON_MEMORY_OPERATION_LOG = "OTEL_PYTHON_MEMORY_OPERATION_LOG"
"""``true`` logs one line for each tracked operation that does not say otherwise. Default ``false``."""
