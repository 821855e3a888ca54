"""Receivers: bytes in, one callable out. One file for each transport."""
