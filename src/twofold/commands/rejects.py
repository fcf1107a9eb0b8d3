"""`twofold rejects`: what broke the contract, and its bytes to be mended and sent or landed again."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from twofold.definition.durations import parse_duration
from twofold.definition.load import load_pipeline
from twofold.reader import Reader, output
from twofold.reader.rejects import LAYERS, Kind, Rejects, Written
from twofold.settings import Settings
from twofold.text import printable


class Since(click.ParamType[datetime]):
    """A moment (ISO 8601, UTC unless it says otherwise), or how long ago."""

    name = "moment or duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read `2013-05-01`, `2013-05-01T12:00`, `2 hours`."""
        try:
            return datetime.now(UTC) - parse_duration(value)
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a moment such as 2013-05-01T12:00Z nor a duration such as 2 hours")
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.command()
@click.argument("pipeline")
@click.option("--layer", type=click.Choice(LAYERS), help="Only what this layer rejected.")
@click.option("--since", type=Since(), help="Only what was received since, e.g. 2013-05-01T12:00 or '2 hours' (ago).")
@click.option("--samples", type=click.IntRange(0, 1000), default=3, show_default=True, help="Records shown per kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write the bytes, a record a line.")
@click.pass_obj
def rejects(
    settings: Settings,
    pipeline: str,
    layer: str | None,
    since: datetime | None,
    samples: int,
    as_json: bool,
    target: Path | None,
) -> None:
    """Show rejected records by kind of reason, and files that were set aside; or write the records' bytes to a file.

    Each record is written byte by byte on a line of its own. One that holds a line break itself would fall apart
    there, so it becomes a file of its own in FILE.apart/.

    \b
    Examples:
      twofold rejects flights
      twofold rejects flights --layer stream --since '2 hours' --json
      twofold rejects flights --to mend.jsonl     # mend it, then:
      twofold produce flights --from mend.jsonl   # or: twofold land flights mend.jsonl
    """
    declared = load_pipeline(settings, pipeline)
    with Reader(settings, {declared.name: declared}) as reader:
        found = Rejects(reader, declared, (layer,) if layer else LAYERS, since)
        if target is not None:
            _write(found, target)
        elif as_json:
            kinds = [kind.plain() for kind in found.kinds(samples)]
            click.echo(json.dumps({"rejected": kinds, "set_aside": found.set_aside()}, indent=1, ensure_ascii=False))
        else:
            _show(found, samples)


def _show(found: Rejects, samples: int) -> None:
    kinds = found.kinds(samples)
    for kind in kinds:
        click.echo(f"{kind.count:>9,}  {kind.layer:<6}  {kind.kind}")
        _show_samples(kind)
    aside = found.set_aside()
    for file in aside:
        click.echo(f"     file  batch   {printable(file['file'])} set aside: {printable(file['reason'])}")
    total = sum(kind.count for kind in kinds)
    click.echo(f"{total:,} records rejected, {len(aside)} files set aside", err=True)


def _show_samples(kind: Kind) -> None:
    for sample in kind.samples:
        payload = "(no value)" if sample.payload is None else printable(sample.payload)
        click.echo(f"{'':19}{printable(sample.place)}  {printable(sample.reason)}  {payload}")


def _write(found: Rejects, target: Path) -> None:
    apart = target.with_name(f"{target.name}.apart")
    with output.whole(target) as part, part.open("wb") as lines:
        written = found.write(lines, apart)
    _tell(written, target, apart)


def _tell(written: Written, target: Path, apart: Path) -> None:
    click.echo(f"{written.lines:,} records written to {target}", err=True)
    if written.apart:
        click.echo(f"{written.apart:,} records hold line breaks: each is a file of its own in {apart}/", err=True)
    if written.empty:
        click.echo(f"{written.empty:,} records had no value: there is nothing of them to write", err=True)
