"""`twofold services`: the producer and the streaming job of each pipeline, looked at, started and stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

import click
from rich.console import Console
from rich.table import Table

from twofold.definition.load import load_all, load_pipeline, load_sound
from twofold.definition.model import Pipeline
from twofold.definition.names import SERVICES
from twofold.services import removed
from twofold.services.controller import Controller, State, as_dict, budget, services_of
from twofold.services.verdict import Look, Verdict, judge
from twofold.settings import Settings

Row = tuple[State, Verdict, Look]


@click.command()
@click.argument("pipeline", required=False)
@click.argument("service", required=False, type=click.Choice(SERVICES))
@click.option("--start", "action", flag_value="start", help="Start, whatever was before; clears the restart budget.")
@click.option("--stop", "action", flag_value="stop", help="Stop; stays down until started manually.")
@click.option("--restart", "action", flag_value="restart", help="End and start again; clears the restart budget.")
@click.option("--log", "with_log", is_flag=True, help="Print the last lines that each service wrote.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, for programs.")
@click.pass_obj
def services(
    settings: Settings, pipeline: str | None, service: str | None, action: str | None, with_log: bool, as_json: bool
) -> None:
    """Look at, start or stop the long-running services of PIPELINE (default: of all).

    Health is judged by one look; the DAG <pipeline>_services takes several, to see progress. Exit code 1 when a
    service is down that was not stopped manually, or reports that it is not healthy. With --stop a producer goes, too,
    that runs though its pipeline declares no `replay` any more.

    \b
    Examples:
      twofold services
      twofold services flights --start
      twofold services flights stream --restart
      twofold services flights producer --stop
    """
    if as_json and with_log:
        raise click.UsageError("--json prints no logs: ask for --log in a call of its own")
    if action == "stop" and pipeline and pipeline not in load_sound(settings.pipelines)[0]:
        _stop_undeclared(settings, pipeline, service)
        return
    chosen = [load_pipeline(settings, pipeline)] if pipeline else list(load_all(settings.pipelines).values())
    if action and not pipeline:
        raise click.UsageError(f"--{action} needs a PIPELINE")
    for one in chosen if action == "stop" and service is None else ():
        for name in removed.stop(settings, one.name, sorted(set(SERVICES) - set(services_of(one)))):
            click.echo(f"{name} was stopped: its pipeline does not declare it any more", err=True)
    named = [(one, name) for one in chosen for name in ([service] if service else services_of(one))]
    for one, name in named:
        _act(settings, action, one.name, name)
    rows = [_look(settings, one, name) for one, name in named]
    _show(rows, as_json)
    if with_log:
        _print_logs(Controller(settings), rows)
    sys.exit(0 if action or all(_fine(row) for row in rows) else 1)


def _stop_undeclared(settings: Settings, pipeline: str, service: str | None) -> None:
    if service is None and removed.gone(settings, [pipeline]):
        stopped, why = removed.end(settings, pipeline), "no file declares its pipeline, whose alerts end"
    else:
        stopped = list(removed.stop(settings, pipeline, [service] if service else SERVICES))
        why = "no sound file declares its pipeline"
    for name in stopped:
        click.echo(f"{name}: stopped; {why}", err=True)
    if not stopped:
        click.echo(f"{pipeline}: no sound file declares it, and nothing of it ran", err=True)


def _act(settings: Settings, action: str | None, pipeline: str, service: str) -> None:
    controller = Controller(settings)
    match action:
        case "start":
            did = controller.start(pipeline, service, by_hand=True)
        case "restart":
            did = controller.restart(pipeline, service, by_hand=True)
        case "stop":
            controller.stop(pipeline, service)
            did = "stopped"
        case _:
            return
    click.echo(f"{pipeline}-{service}: {'runs already' if did == 'running' else did}", err=True)


def _look(settings: Settings, pipeline: Pipeline, service: str) -> Row:
    controller = Controller(settings)
    state = controller.state(pipeline.name, service)
    seen = controller.look(pipeline, state)
    found = judge(service, [seen], controller.limits(pipeline, good_samples=1))
    return state, found, seen


def _fine(row: Row) -> bool:
    state, found, seen = row
    return found.fine or found.kind == "stopped" or (found.kind == "not yet" and state.runs and not seen.silent)


def _show(rows: Iterable[Row], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([as_dict(state, found, seen.health) for state, found, seen in rows], indent=2))
        return
    table = Table(box=None)
    for name in ("service", "state", "pid", "up", "restarts", "health"):
        table.add_column(name, justify="right" if name in ("pid", "up") else "left")
    for state, found, _ in rows:
        up = f"{state.uptime_s:.0f} s" if state.runs else ""
        table.add_row(state.name, state.state, str(state.pid or ""), up, budget(state), _health(found))
    Console(highlight=False).print(table)


def _health(found: Verdict) -> str:
    return f"{found.kind}: {found.reason}" if found.kind in ("healthy", "stuck") else found.reason


def _print_logs(controller: Controller, rows: Iterable[Row]) -> None:
    for state, *_ in rows:
        click.echo(f"\n{controller.log_place(state)}:")
        for line in controller.log_tail(state.pipeline, state.service):
            click.echo(f"  {line}")
