"""The analyzer in a consumer group: the log is the state."""
