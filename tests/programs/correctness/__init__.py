"""Programs that fork, spawn, thread and end in every way, for the tests of the whole probe's correctness."""
