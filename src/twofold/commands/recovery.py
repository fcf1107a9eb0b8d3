"""`twofold recatalog`: the way on after the catalog was lost."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import click
from pyiceberg.catalog.sql import SqlCatalog

from twofold import catalog as catalogs
from twofold import database
from twofold import recatalog as recatalogs
from twofold.errors import Busy
from twofold.settings import Settings

_GO = click.option("--yes/--dry-run", "go", default=False, help="Do it; without --yes, only say what would be done.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command()
@click.argument("pipeline", required=False)
@_GO
@_JSON
@click.pass_context
def recatalog(context: click.Context, pipeline: str | None, go: bool, as_json: bool) -> None:
    """Make the catalog again from the tables' metadata in the bucket: of all pipelines there, or of PIPELINE alone.

    For a PostgreSQL that was lost, or brought back from a copy that is older than the tables. No job may run meanwhile.
    A table whose last commit cannot be told is refused, with the files to choose from; the others are done all the
    same. Exit code 1 where any was refused.

    \b
    Examples:
      twofold up --no-airflow
      twofold recatalog            # says which tables the catalog lacks
      twofold recatalog --yes && twofold up
    """
    settings: Settings = context.obj
    catalog = catalogs.load(settings)
    assert isinstance(catalog, SqlCatalog)
    found = []
    for entry in recatalogs.plan(catalog, pipeline):
        if go and entry.state in (recatalogs.NEW, recatalogs.BEHIND):
            _require_idle(settings, entry.pipeline)
            recatalogs.carry_out(catalog, entry)
        found.append(entry)
        if not as_json:
            click.echo(f"{entry.pipeline}.{entry.table}: {entry.state}: {entry.text}")
    counts = Counter(entry.state for entry in found)
    if as_json:
        click.echo(json.dumps({"tables": [asdict(entry) for entry in found], "done": go}))
    else:
        said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "the bucket has no tables"
        click.echo(said + ("" if go else "; nothing was done: --yes does it"))
    context.exit(1 if counts[recatalogs.REFUSED] else 0)


def _require_idle(settings: Settings, pipeline: str) -> None:
    for role in database.ROLES:
        if database.is_held(settings, pipeline, role):
            what = f"a {role} job of {pipeline} runs"
            raise Busy(what, "stop the services and Airflow (`twofold up --no-airflow`), and run this again")
