"""What ends a part of a run: the figures of the parts before it still count."""

from __future__ import annotations


class BenchFailure(Exception):
    """A part could not be measured."""


class CommandFailed(BenchFailure):
    """A measured command did not end well."""


class NotThere(BenchFailure):
    """What is waited for does not come."""


class Differs(BenchFailure):
    """Two engines do not give the same answer, so their times say nothing."""
