"""Errors of the set-up steps."""

from __future__ import annotations

from twofold.errors import TwofoldError


class SetupError(TwofoldError):
    """Something this machine lacks, or could not fetch or build."""
