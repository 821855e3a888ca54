"""Programs that tests run as their own processes."""
