"""One module per command, found lazily by `twofold.cli`: reading an expression must not cost Kafka's imports."""

from __future__ import annotations

import sys
from typing import TextIO

from twofold.errors import UsageError


def standard_input() -> TextIO:
    """What is piped in; UsageError where whoever started this program has closed it."""
    if sys.stdin is None:
        raise UsageError("standard input is closed", "pipe something into it, or name a file")
    return sys.stdin
