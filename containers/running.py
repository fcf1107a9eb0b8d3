"""How every entry point of a container runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import click

from twofold.errors import TwofoldError


def main(start: Callable[[Sequence[str]], None]) -> None:
    """Run an entry point with the arguments of the command line; a known fault is one sentence."""
    try:
        start(sys.argv[1:])
    except TwofoldError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
