"""How every entry point of a container runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from twofold.errors import as_sentences


def main(start: Callable[[Sequence[str]], None]) -> None:
    """Run an entry point with the arguments of the command line; a known fault is one sentence."""
    with as_sentences():
        start(sys.argv[1:])
