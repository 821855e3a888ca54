"""The analyzer: a service of its own that reads OTLP and says that a process leaks, when it ends, and what grows.

Owns nothing at import. Never imports the probe.
"""
