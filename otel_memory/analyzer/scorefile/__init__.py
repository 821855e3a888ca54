"""``otel-memory score FILE``: judges the series of a file, without a running analyzer.

Owns reading files of several forms, and what is printed and drawn of the scores. The scoring itself is ``scoring``'s.
"""
