"""`twofold replay`: landed files, or mended records, go through again; without --go it only says what would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from twofold import replay as replays
from twofold.definition.load import load_pipeline
from twofold.errors import UsageError
from twofold.lake import Lake
from twofold.replay import Plan
from twofold.settings import Settings


@click.command()
@click.argument("pipeline")
@click.option("--landings", metavar="A..B", help="Files that these landings took: 3, 3..5, or 3.. for all since.")
@click.option("--mended", multiple=True, type=click.Path(path_type=Path), help="A file of mended records; repeatable.")
@click.option("--label", help="Names the copies; the same label again changes nothing.  [default: the moment, UTC]")
@click.option("--go", is_flag=True, help="Do it; without this, only say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def replay(
    settings: Settings,
    pipeline: str,
    landings: str | None,
    mended: tuple[Path, ...],
    label: str | None,
    go: bool,
    as_json: bool,
) -> None:
    """Let landed files of PIPELINE, or mended records, go through again, as copies below replay/ in its inbox.

    For files: after a changed definition, so that records which were rejected or filtered are judged anew. The next
    `twofold batch` takes each copy once, and its rows win over the old ones of the same id.

    \b
    Examples:
      twofold replay flights --landings 3..          # says what would go through again
      twofold replay flights --landings 3.. --go && twofold batch flights
      twofold rejects flights --to mend.jsonl        # mend it, then:
      twofold replay flights --mended mend.jsonl --go && twofold batch flights
    """
    lake = Lake(settings, load_pipeline(settings, pipeline))
    if bool(landings) == bool(mended):
        raise UsageError("replay wants either --landings or --mended", "see `twofold replay --help`")
    name = label or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if landings:
        plan = replays.plan_landings(lake, *replays.numbers(landings), name)
    else:
        plan = replays.plan_mended(lake.name, mended, name)
    if go:
        replays.carry_out(lake, plan)
    click.echo(json.dumps({**asdict(plan), "done": go}) if as_json else "\n".join(_lines(plan, go)))


def _lines(plan: Plan, done: bool) -> Iterator[str]:
    yield f"{plan.pipeline}: {len(plan.copies)} files {'put' if done else 'would be put'} into the inbox"
    for copy in plan.copies:
        rows = "" if copy.rows is None else f", {copy.rows:,} rows"
        yield f"  {copy.source} ({copy.size_bytes:,} bytes{rows}) as {copy.target}"
    yield from (f"  left out: {line}" for line in plan.left_out)
    yield f"next: `twofold batch {plan.pipeline}`" if done else "nothing was done: --go does it"
