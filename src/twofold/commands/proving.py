"""`twofold prove` and `compare`: the invariants, and the two layers per window."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

import click
from rich.console import Console

from twofold import comparison
from twofold.comparison import Comparison
from twofold.definition.load import load_pipeline
from twofold.lake import Lake
from twofold.proof.findings import BEHIND, HOLDS, NOT_PROVED, VIOLATED, Proof
from twofold.proof.prover import LONGEST_WAIT_S
from twofold.proof.prover import prove as run_proof
from twofold.settings import Settings

_COLORS = {HOLDS: "green", BEHIND: "yellow", NOT_PROVED: "magenta", VIOLATED: "red"}


@click.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON object.")
@click.option(
    "--wait",
    default=LONGEST_WAIT_S,
    show_default=True,
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait for a running streaming job that makes no progress.",
)
@click.option("--all", "compare_all", is_flag=True, help="Compare the values of all records, not of 1,000 of each log.")
@click.option(
    "--since-last", is_flag=True, help="Check what changed since the last proof in which nothing was violated."
)
@click.pass_obj
def prove(settings: Settings, pipeline: str, as_json: bool, wait: float, compare_all: bool, since_last: bool) -> None:
    """Check PIPELINE's invariants on the live tables, against Kafka and an independent recomputation.

    On a live stream `prove` reads Kafka's ends first and waits for the job to pass them. A layer that is behind is
    reported as behind, which is no violation. What could not be checked is not proved: neither right nor wrong.

    With --since-last the cost grows with what is new: rows, files and days that changed are checked, and the others are
    taken as the last proof found them. docs/invariants.md lists what only a proof in full sees. Where there is no proof
    to build on, everything is checked, and the reason is given.

    \b
    Exit code:
      0  every invariant holds, or is behind
      1  an invariant is violated (the first records are named), or is behind and the job that would fix it failed
      3  nothing is violated, but something is not proved

    \b
    Examples:
      twofold prove flights
      twofold prove flights --since-last
      twofold prove flights --all       # every value of every record that Kafka and the inbox still have
      twofold prove flights --json | jq '.invariants[] | select(.ok | not)'
      twofold prove flights --wait 0    # do not wait for the streaming job
    """
    progress = Console(stderr=True, highlight=False)
    lake = Lake(settings, load_pipeline(settings, pipeline))
    proof = run_proof(lake, wait, progress.print, compare_all=compare_all, since_last=since_last)
    if as_json:
        click.echo(json.dumps(proof.to_json(), indent=1, default=str))
    else:
        click.echo("\n".join(_lines(proof)))
    sys.exit(proof.exit_code)


def _lines(proof: Proof) -> Iterator[str]:
    for check in proof.checks:
        state = f"{check.state.upper() if check.state == VIOLATED else check.state:<10}"
        # Only a terminal shows colours.
        yield f"{check.id} {click.style(state, fg=_COLORS[check.state])} {check.text}"
        yield from (f"     {offender}" for offender in check.offenders)
    if proof.since and proof.in_full_at:
        since, full = (f"{at:%Y-%m-%d %H:%M} UTC" for at in (proof.since, proof.in_full_at))
        yield (
            f"checked: what changed since the proof of {since}; everything: last at {full}; "
            "in full only: stream_<view>, ids far apart, files changed in place (docs/invariants.md)"
        )
    yield _verdict(proof)


def _verdict(proof: Proof) -> str:
    if violated := ", ".join(check.id for check in proof.checks if not check.ok):
        return f"{proof.pipeline}: VIOLATED: {violated}"
    unproved = ", ".join(check.id for check in proof.checks if not check.proved)
    said = f"NOT PROVED: {unproved}; nothing is violated" if unproved else "all invariants hold"
    behind = ", some of it is behind" if proof.behind else ""
    stuck = ", and the job that would fix it failed" if proof.stuck else ""
    return f"{proof.pipeline}: {said}{behind}{stuck}"


@click.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def compare(settings: Settings, pipeline: str, as_json: bool) -> None:
    """Compare batch_<view> and stream_<view> of PIPELINE in the windows that unions changed since the last comparison.

    The batch layer is right; the speed layer lacks late records and the corrections of files: by this much were
    live_<view> and dashboards off, while unified_<view> was exact all along. Also counts the late events that the
    unions healed, sends all numbers as metrics, and keeps them for the status page. Exit code 1 where they are beyond
    the definition's `limits`.

    \b
    Examples:
      twofold union flights && twofold compare flights
      twofold compare flights --json
    """
    declared = load_pipeline(settings, pipeline)
    found = comparison.compare_and_send(Lake(settings, declared))
    faults = comparison.beyond(found, declared.limits)
    click.echo(json.dumps({**asdict(found), "faults": faults}) if as_json else "\n".join(_compared(found)))
    for fault in faults:
        click.echo(f"beyond its limit: {fault}", err=True)
    sys.exit(1 if faults else 0)


def _compared(found: Comparison) -> Iterator[str]:
    yield f"{found.pipeline}: {found.change}, {found.healed_late:,} late ones healed"
    for name, view in found.views.items():
        yield (
            f"  batch_{name} and stream_{name}: {view.compared:,} windows compared, {view.different:,} differ "
            f"({view.only_batch:,} only in batch, {view.only_stream:,} only in speed), by {view.mean:.2%} on average"
        )
        yield from (f"    {line}" for line in view.worst)
