"""`python -m twofold.setup jars|minio|statsd-exporter`: fetch or build one thing, print where it is."""

from __future__ import annotations

import click

from twofold.errors import as_sentences
from twofold.setup.jars import ensure_jars
from twofold.setup.servers import ensure


@click.command()
@click.argument("what", type=click.Choice(["jars", "minio", "statsd-exporter"]))
def main(what: str) -> None:
    """Have WHAT in the per-user cache, and print its path.

    \b
    Examples:
      python -m twofold.setup jars
      python -m twofold.setup minio
    """
    with as_sentences():
        click.echo(ensure_jars() if what == "jars" else ensure(what.replace("-", "_")))


if __name__ == "__main__":
    main()
