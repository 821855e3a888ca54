"""Exporters of the OpenTelemetry SDK, found by entry points; they read their own environment and know no probe."""
