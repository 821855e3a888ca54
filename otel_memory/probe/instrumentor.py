"""The way in for ``opentelemetry-instrument`` and for a call by hand; thin, and harmless.

Whatever goes wrong is logged, never raised, on both paths: an exception that left an instrumentor here would keep the
launcher from loading those after it. The application then runs on without the probe, and ``instrument()`` can be called
again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from otel_memory.probe.config import Settings, SettingsError, unknown_variables
from otel_memory.probe.declarative import off_in_file
from otel_memory.probe.interpreter import in_main_interpreter

if TYPE_CHECKING:
    from otel_memory.probe.lifecycle import Probe

_logger: Final = logging.getLogger("otel_memory.probe")
_WITHOUT: Final = "The application runs on without otel-memory's probe."


class MemoryInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # the base is untyped
    """Starts and stops the probe of this process; a singleton, as all instrumentors are.

    ``instrument(**settings)`` takes what the variables ``OTEL_PYTHON_MEMORY_*`` take, by their lower-case names
    (``interval=500, thresholds="rss>512MiB"``), and ``meter_provider``, ``logger_provider``. Neither it nor
    ``uninstrument()`` ever raises; both may be called as often as one likes.
    """

    # No class attribute ``configuration``: OpenTelemetry's declarative file then hands over all that stands under
    # ``instrumentation/development: python: otel_memory:``, and an unknown key is refused here, with the nearest one.

    # On the class, because every call of the constructor runs __init__ on the one instance again.
    _probe: Probe | None = None
    _refused = False

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: what is instrumented is the interpreter."""
        return ()

    def instrument(self, **kwargs: Any) -> None:
        """Start the probe. What is wrong is logged with the name of the setting, and the probe then doesn't run."""
        if kwargs.get("skip_dep_check") and (self._probe is not None or self._refused or off_in_file(os.environ)):
            return  # the launcher comes after the declarative file, which has had the say
        try:
            super().instrument(**kwargs)
        except Exception:
            _logger.exception("otel-memory could not be started. %s", _WITHOUT)
        # The base class calls it instrumented also where nothing was started; then a second try would be refused.
        self._is_instrumented_by_opentelemetry = self._probe is not None

    def uninstrument(self, **kwargs: Any) -> None:
        """Stop the probe and leave nothing of it behind."""
        try:
            super().uninstrument(**kwargs)
        except Exception:
            _logger.exception("otel-memory could not be stopped cleanly.")
        self._is_instrumented_by_opentelemetry = self._probe is not None

    def _instrument(self, **kwargs: Any) -> None:
        meter_provider = kwargs.pop("meter_provider", None)
        logger_provider = kwargs.pop("logger_provider", None)
        kwargs.pop("tracer_provider", None)  # operations use the current span, whoever made it
        try:
            settings = Settings.load(os.environ, **kwargs)
        except SettingsError as error:
            self._refuse(error)
            return
        self._refused = False
        for sentence in unknown_variables(os.environ):
            _logger.warning("otel-memory: %s", sentence)
        if not settings.enabled:
            _logger.info("otel-memory: OTEL_SDK_DISABLED is set. %s", _WITHOUT)
            return
        if not in_main_interpreter():
            _logger.warning("otel-memory: this is a subinterpreter; the probe serves main interpreters. %s", _WITHOUT)
            return
        from otel_memory.probe.lifecycle import Probe

        probe = Probe(settings, meter_provider, logger_provider)
        try:
            probe.start()
        except SettingsError as error:  # what a setting asks for is not installed
            self._refuse(error)
            return
        self._probe = probe

    def _refuse(self, error: SettingsError) -> None:
        _logger.error("otel-memory: %s. %s", error, _WITHOUT)
        self._refused = True

    def _uninstrument(self, **kwargs: Any) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.stop()
