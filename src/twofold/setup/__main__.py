"""`python -m twofold.setup jars|minio|statsd-exporter|registry`: fetch or build one thing, print where it is."""

from __future__ import annotations

import click

from twofold.errors import as_sentences
from twofold.setup.jars import ensure_jars, ensure_registry
from twofold.setup.servers import ensure


@click.command()
@click.argument("what", type=click.Choice(["jars", "minio", "statsd-exporter", "registry"]))
def main(what: str) -> None:
    """Have WHAT in the per-user cache, and print its path.

    \b
    Examples:
      python -m twofold.setup jars
      python -m twofold.setup minio
    """
    with as_sentences():
        others = {"jars": ensure_jars, "registry": ensure_registry}
        click.echo(others[what]() if what in others else ensure(what.replace("-", "_")))


if __name__ == "__main__":
    main()
