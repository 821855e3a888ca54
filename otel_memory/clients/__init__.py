"""The reading verbs of the command line. They speak REST to an analyzer and know nothing of its insides."""
