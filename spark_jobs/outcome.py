"""How a Spark job ends: its report as text or JSON, its failure as a sentence and a remedy, both also in a file.

work() ─► report ──► stdout (text, or JSON with --json), warnings on stderr; exit 0, or 1 with warnings
     └─► failure ──► stderr; exit 1 (2 for a wrong command line)
            both ──► --outcome FILE, whole or not at all, for the job's caller: {"report": …} or {"error": …}
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click
from py4j.protocol import Py4JError

from spark_jobs.spark_session import JVM_FAILED, JVM_GONE, declared
from twofold import database
from twofold.errors import ClockBehind, TwofoldError, end
from twofold.local_files import write_whole
from twofold.settings import Settings

REPEAT = "what it had committed stays, nothing is half-written: fix the cause and run it again"

FAILURES = (TwofoldError, *JVM_FAILED, *JVM_GONE)
"""What a program tells in a sentence; anything else is a fault of its own, and ends with a trace."""

_DATED_BACK = ("Expected sorted snapshot log entries", "Invalid update timestamp", "Invalid snapshot timestamp")
_CATALOG_AWAY = tuple(
    f"PSQLException: {said}"
    for said in ("The connection attempt failed", "An I/O error", "Connection to", "This connection has been closed")
)
"""How PostgreSQL's driver says that the server does not answer, or no longer."""
_THROWN = re.compile(r"(Caused by)?: ")
"""Before what the JVM threw: py4j puts it on the line after its own words, each cause after the trace of its effect."""


def program(
    command: click.Command, work: Callable[..., dict[str, Any]], lines: Callable[[dict[str, Any]], Iterable[str]]
) -> click.Command:
    """The program of a job: the command's own options go to `work`, with the pipeline's lake in place of its name."""

    def main(pipeline: str, as_json: bool, outcome_file: Path | None, **options: Any) -> None:  # noqa: ANN401
        run(lambda: work(declared(pipeline), **options), lambda made: "\n".join(lines(made)), as_json, outcome_file)

    file = click.Path(path_type=Path)
    outcome = click.Option(["--outcome", "outcome_file"], type=file, help="Also write how the job ended to this file.")
    return click.command(command.name, params=[*command.params, outcome], help=command.help)(main)


def run(
    work: Callable[[], dict[str, Any]], as_text: Callable[[dict[str, Any]], str], as_json: bool, outcome: Path | None
) -> NoReturn:
    """Do the work, report how it ended, and exit."""
    try:
        report = work()
        _write(outcome, {"report": report})
    except FAILURES as error:
        failure = of_failure(error)
        try:
            _write(outcome, {"error": failure.message, "remedy": failure.remedy, "exit_code": failure.exit_code})
        finally:
            end(failure)
    click.echo(json.dumps(report, default=str) if as_json else as_text(report))
    warnings = report.get("warnings", [])
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    sys.exit(1 if warnings else 0)


def of_failure(error: Exception) -> TwofoldError:
    """One of `FAILURES` as an error of ours."""
    if isinstance(error, TwofoldError):
        return error
    if isinstance(error, JVM_FAILED):
        # py4j asks the JVM for what it said, which may be gone by now.
        with suppress(*JVM_GONE):
            return of_jvm(error)
    if isinstance(error, Py4JError | ConnectionError):
        return TwofoldError("the JVM of this job is gone, killed perhaps for want of memory", REPEAT)
    # No space, too many open files, a folder that may not be written: the machine's affair, or the user's.
    return TwofoldError(f"a file could not be read or written: {error}", REPEAT)


def of_jvm(error: Exception) -> TwofoldError:
    """What failed inside the JVM, as an error of ours."""
    if is_clock_behind(str(error)):
        return ClockBehind("a table")
    if any(sign in str(error) for sign in _CATALOG_AWAY):
        return database.away(Settings(), root_cause(error))
    return TwofoldError(f"Spark failed: {root_cause(error)}", REPEAT)


def is_clock_behind(text: str) -> bool:
    """Whether Iceberg in the JVM refused a commit for its date."""
    return any(sign in text for sign in _DATED_BACK)


def root_cause(error: Exception) -> str:
    """The innermost message of an error that came out of the JVM, in one line of at most 300 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    thrown = [_THROWN.sub("", line, count=1) for line in lines if _THROWN.match(line)]
    return (thrown[-1] if thrown else lines[0])[:300]


def _write(outcome: Path | None, content: Mapping[str, Any]) -> None:
    if outcome is not None:
        write_whole(outcome, json.dumps(content, default=str))
