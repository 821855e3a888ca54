"""What ``otel-memory demo`` starts: two samples, load for them, the analyzer. Everything is a subprocess."""
