"""`twofold compare`: the two layers per window, after a union; exit 1 where a limit of the definition is passed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import click

from twofold import comparison
from twofold.comparison import Comparison
from twofold.definition.load import load_pipeline
from twofold.lake import Lake
from twofold.settings import Settings


@click.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def compare(context: click.Context, pipeline: str, as_json: bool) -> None:
    """Compare batch_<view> and stream_<view> of PIPELINE in the windows that unions changed since the last comparison.

    The batch layer is right; the speed layer lacks what came late, and what files corrected: so far were live_<view>
    and dashboards off, while unified_<view> was exact all along. Also counts the late events that the unions healed,
    sends all numbers as metrics, and keeps them for the status page. Exit code 1 where they are beyond the definition's
    `limits`.

    \b
    Examples:
      twofold union flights && twofold compare flights
      twofold compare flights --json
    """
    settings: Settings = context.obj
    declared = load_pipeline(settings, pipeline)
    found = comparison.compare_and_send(Lake(settings, declared))
    faults = comparison.beyond(found, declared.limits)
    click.echo(json.dumps({**asdict(found), "faults": faults}) if as_json else "\n".join(_lines(found)))
    for fault in faults:
        click.echo(f"beyond its limit: {fault}", err=True)
    context.exit(1 if faults else 0)


def _lines(found: Comparison) -> Iterator[str]:
    new = found.events_after - found.events_before
    yield f"{found.pipeline}: {new:,} new events, {found.healed_late:,} late ones healed"
    for name, view in found.views.items():
        yield (
            f"  batch_{name} and stream_{name}: {view.compared:,} windows compared, {view.different:,} differ "
            f"({view.only_batch:,} only in batch, {view.only_stream:,} only in speed), by {view.mean:.2%} on average"
        )
        yield from (f"    {line}" for line in view.worst)
