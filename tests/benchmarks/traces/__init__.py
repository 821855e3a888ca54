"""Labelled traces of memory as it looks from outside: made here with fixed seeds, or read from recorded data."""
