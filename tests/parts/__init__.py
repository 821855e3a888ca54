"""The real parts that the integration tests run against: how each is got, and where it lies afterwards.

Standard library only, so that it runs before any environment exists. Owns the cache of parts outside the
checkout; never starts a part (``tests/harness`` does) and never needs a network to say where one lies.
"""
