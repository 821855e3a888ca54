"""Memory by package: what importing cost, what is live, how it develops; and loading packages late.

This folder's names are handed out by the public face; nothing happens when it is imported.
"""
