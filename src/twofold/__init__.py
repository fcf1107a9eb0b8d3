"""Twofold: a lambda architecture that proves its own counts."""

__version__ = "0.2.0"
