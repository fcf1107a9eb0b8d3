"""`twofold rejects` and `replay`: records that broke the contract, and how they go through again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from twofold import replay as replays
from twofold.definition.load import load_pipeline
from twofold.definition.types import parse_since
from twofold.errors import UsageError
from twofold.lake import Lake
from twofold.reader import Reader, output
from twofold.reader.rejects import LAYERS, Rejects
from twofold.replay import Plan
from twofold.settings import Settings
from twofold.text import printable


def moment(text: str) -> datetime:
    """A moment (ISO 8601, UTC unless it says otherwise), or how long ago: `2013-05-01T12:00`, `2 hours`."""
    try:
        return parse_since(text, datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is {error}") from None


@click.command()
@click.argument("pipeline")
@click.option("--layer", type=click.Choice(LAYERS), help="Only what this layer rejected.")
@click.option("--since", type=moment, help="Only what was received since, e.g. 2013-05-01T12:00 or '2 hours' (ago).")
@click.option("--samples", type=click.IntRange(0, 1000), show_default="3", help="Records shown per kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write the bytes, a record a line.")
@click.pass_obj
def rejects(
    settings: Settings,
    pipeline: str,
    layer: str | None,
    since: datetime | None,
    samples: int | None,
    as_json: bool,
    target: Path | None,
) -> None:
    """Show rejected records by kind of reason, and files that were set aside; or write the records' bytes to a file.

    Each record is written byte by byte on a line of its own. A record that holds a line break would be split there,
    and one with a zero byte be read as UTF-16, so it becomes a file of its own in FILE.apart/. Of a record with
    `event.each` only the rejected elements are written, and rows of CSV and Parquet as JSON of the same values.

    \b
    Examples:
      twofold rejects flights
      twofold rejects flights --layer stream --since '2 hours' --json
      twofold rejects flights --to fix.jsonl     # fix it, then:
      twofold produce flights --from fix.jsonl   # or: twofold land flights fix.jsonl
    """
    if target is not None and (as_json or samples is not None):
        raise click.UsageError("--to writes all records: leave out --json and --samples, which say what is printed")
    samples = 3 if samples is None else samples
    declared = load_pipeline(settings, pipeline)
    with Reader(settings, {declared.name: declared}) as reader:
        found = Rejects(reader, declared, (layer,) if layer else LAYERS, since)
        if target is not None:
            _write_bytes(found, target)
        elif as_json:
            kinds = [asdict(kind) for kind in found.kinds(samples)]
            click.echo(json.dumps({"rejected": kinds, "set_aside": found.set_aside()}, indent=1, ensure_ascii=False))
        else:
            _show(found, samples)


def _show(found: Rejects, samples: int) -> None:
    kinds = found.kinds(samples)
    for kind in kinds:
        click.echo(f"{kind.count:>9,}  {kind.layer:<6}  {kind.kind}")
        for sample in kind.samples:
            payload = "(no value)" if sample.payload is None else printable(sample.payload)
            click.echo(f"{'':19}{printable(sample.place)}  {printable(sample.reason)}  {payload}")
    aside = found.set_aside()
    for file in aside:
        click.echo(f"     file  batch   {printable(file['file'])} set aside: {printable(file['reason'])}")
    total = sum(kind.count for kind in kinds)
    click.echo(f"{total:,} records rejected, {len(aside)} files set aside", err=True)


def _write_bytes(found: Rejects, target: Path) -> None:
    apart = target.with_name(f"{target.name}.apart")
    with output.whole(target) as part, part.open("wb") as lines:
        written = found.write(lines, apart)
    click.echo(f"{written['lines']:,} records written to {target}", err=True)
    if written["apart"]:
        click.echo(
            f"{written['apart']:,} records are no line of UTF-8: each is a file of its own in {apart}/", err=True
        )
    if written["empty"]:
        click.echo(f"{written['empty']:,} records had no value: there is nothing of them to write", err=True)


@click.command()
@click.argument("pipeline")
@click.option("--landings", metavar="A..B", help="Files that these landings took: 3, 3..5, or 3.. for all since.")
@click.option("--mended", multiple=True, type=click.Path(path_type=Path), help="A file of fixed records; repeatable.")
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
    """Let ingested files of PIPELINE, or fixed records, go through again, as copies below replay/ in its inbox.

    For files: after a changed definition, so that records which were rejected or filtered are judged again. The next
    `twofold batch` ingests each copy once, and its rows win over the old ones of the same id.

    \b
    Examples:
      twofold replay flights --landings 3..          # says what would go through again
      twofold replay flights --landings 3.. --go && twofold batch flights
      twofold rejects flights --to fix.jsonl        # fix it, then:
      twofold replay flights --mended fix.jsonl --go && twofold batch flights
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
