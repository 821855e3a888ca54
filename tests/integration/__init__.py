"""Tests against real parts. Each names the parts it needs with the mark ``needs``."""
