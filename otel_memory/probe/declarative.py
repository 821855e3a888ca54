"""What OpenTelemetry's declarative file (``OTEL_CONFIG_FILE``) says about whether the probe is to run.

Its other keys reach ``MemoryInstrumentor.instrument`` as arguments. Owns only the two switches that the launcher passes
over: it starts every instrumentor that the file has not started.
"""

from __future__ import annotations

from collections.abc import Mapping

CONFIG_FILE = "OTEL_CONFIG_FILE"
INSTRUMENTOR = "otel_memory"


def off_in_file(environ: Mapping[str, str]) -> bool:
    """Whether the file has ``disabled: true``, or ``enabled: false`` under the probe's key. Never raises.

    A file that can't be read is OpenTelemetry's to complain of, and it has done so by then.
    """
    path = environ.get(CONFIG_FILE)
    if not path:
        return False
    try:
        from opentelemetry.configuration import load_config_file

        config = load_config_file(path)
        if config.disabled:
            return True
        section = config.instrumentation_development
        options = (section.python if section is not None else None) or {}
        own = options.get(INSTRUMENTOR)
        return isinstance(own, Mapping) and not own.get("enabled", True)
    except Exception:
        return False
