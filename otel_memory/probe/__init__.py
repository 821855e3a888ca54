"""What lives in the user's process: reads memory, judges thresholds, emits OpenTelemetry metrics and events.

Never harms its host: nothing here raises into the application, blocks it, or grows without bound. Imports at
load neither the OpenTelemetry SDK nor anything heavy; this file names nothing and does nothing.
"""
