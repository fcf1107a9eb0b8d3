"""`twofold accept-loss` and `recatalog`: ways on after something was lost for good."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

import click

from twofold import catalog as catalogs
from twofold import database, loss
from twofold import recatalog as recatalogs
from twofold.definition.load import load_pipeline
from twofold.errors import Busy
from twofold.lake import Lake
from twofold.loss import Loss
from twofold.settings import Settings
from twofold.topic import place

_GO = click.option("--yes/--dry-run", "go", default=False, help="Do it; without --yes, only say what would be done.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command()
@click.argument("pipeline")
@_GO
@_JSON
@click.pass_obj
def accept_loss(settings: Settings, pipeline: str, go: bool, as_json: bool) -> None:
    """Accept as lost what Kafka deleted before PIPELINE's stream landed it, so that the stream can continue.

    Only for a stream that was down for longer than its topic keeps records: it refuses to start until then. What is
    lost is named (partition, offsets, times), kept in the state of stream_log for good, and said from then on by
    `twofold prove`, `twofold status`, the status page and the metric twofold_stream_lost_offsets.

    \b
    Examples:
      twofold accept-loss flights          # says what is lost, and what was accepted before
      twofold accept-loss flights --yes && twofold services flights stream --restart
    """
    lake = Lake(settings, load_pipeline(settings, pipeline))
    found = loss.look(lake)
    done = go and bool(found.lost)
    if done:
        loss.accept(lake, found)
    if as_json:
        lost, before = ([asdict(one) for one in each] for each in (found.lost, found.landed.lost))
        body = {"pipeline": lake.name, "lost": lost, "before": before, "done": done}
        click.echo(json.dumps(body, default=str))
    else:
        click.echo("\n".join(_loss_lines(lake, found, done)))


def _loss_lines(lake: Lake, found: Loss, done: bool) -> Iterator[str]:
    name, topic = lake.name, lake.pipeline.topic.name
    for one in found.landed.lost:
        yield f"{name}: accepted as lost on {one.accepted_at:%Y-%m-%d %H:%M} UTC: {loss.sentence(topic, one)}"
    if not found.lost:
        yield f"{name}: Kafka has everything that is not landed yet: nothing is lost"
        return
    yield f"{name}: Kafka no longer has offsets that were never landed, each a record or a mark of a transaction:"
    yield from (f"  {loss.sentence(topic, one)}" for one in found.lost)
    if found.landed_at:
        yield f"the stream last landed at {found.landed_at:%Y-%m-%d %H:%M} UTC, {_ago(found.landed_at)} ago"
    if not done:
        yield "nothing was done: --yes accepts the loss, and the stream continues after it"
        return
    ends = ", ".join(place(topic, one.partition, (one.end, one.end + 1)) for one in found.lost)
    yield f"accepted as lost; the stream continues at {ends}:"
    yield f"  `twofold services {name} stream --restart`, or `twofold stream {name}`"


def _ago(at: datetime) -> str:
    hours = (datetime.now(UTC) - at).total_seconds() / 3600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"


@click.command()
@click.argument("pipeline", required=False)
@_GO
@_JSON
@click.pass_obj
def recatalog(settings: Settings, pipeline: str | None, go: bool, as_json: bool) -> None:
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
    catalog = catalogs.load(settings)
    found = []
    for entry in recatalogs.plan(catalog, pipeline):
        if go and entry.state in (recatalogs.NEW, recatalogs.BEHIND):
            _require_idle(settings, entry.pipeline)
            recatalogs.carry_out(catalog, entry)
        found.append(entry)
        if not as_json:
            click.echo(f"{entry.pipeline}.{entry.table}: {_said(entry.state, go)}: {entry.text}")
    counts = Counter(entry.state for entry in found)
    if as_json:
        click.echo(json.dumps({"tables": [asdict(entry) for entry in found], "done": go}))
    else:
        told = (f"{count} {_said(state, go)}" for state, count in sorted(counts.items()))
        said = ", ".join(told) or f"the bucket has no tables{f' of a pipeline {pipeline}' if pipeline else ''}"
        click.echo(said + ("" if go else "; nothing was done: --yes does it"))
    sys.exit(1 if counts[recatalogs.REFUSED] else 0)


def _said(state: str, done: bool) -> str:
    return state.removeprefix("to be ") if done else state


def _require_idle(settings: Settings, pipeline: str) -> None:
    for role in database.ROLES:
        if database.is_held(settings, pipeline, role):
            what = f"a {role} job of {pipeline} runs"
            raise Busy(what, "stop the services and Airflow (`twofold up --no-airflow`), and run this again")
