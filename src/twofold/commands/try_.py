"""`twofold try`: the outcomes that a file's records would have, without Kafka, JVM or stack.

    file, stdin ─► readers ─► contract ─► counts, reasons with samples │ an object a record

The readers and the contract are those of the jobs, so the judgement is too, except that everything arrives now.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

import click

from twofold import readers, tables
from twofold.commands import standard_input
from twofold.contract.judge import Judge
from twofold.contract.records import Records
from twofold.contract.reference import value_text
from twofold.definition.fault import shortened
from twofold.definition.load import SUFFIXES, load_file, load_pipeline
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.settings import Settings
from twofold.text import counted

STANDARD_INPUT = Path("-")
_PAYLOAD_SHOWN = 160
_IN_MEMORY_BYTES = 16 << 20


class RejectedRow(NamedTuple):
    """A rejected record, by its number in the file."""

    row: int
    reason: str
    payload: bytes | None


@dataclass
class Summary:
    """Records by outcome, rejected ones by kind of reason, and the first of each kind."""

    samples_wanted: int
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[RejectedRow]] = field(default_factory=dict)

    def add(self, row: int, judged: dict[str, Any]) -> None:
        """Count one record."""
        self.outcomes[judged[tables.OUTCOME]] += 1
        kind = judged[tables.REASON_KIND]
        if kind is None:
            return
        self.kinds[kind] += 1
        shown = self.samples.setdefault(kind, [])
        if len(shown) < self.samples_wanted:
            shown.append(RejectedRow(row, judged[tables.REASON], judged[tables.PAYLOAD]))

    def lines(self, name: str) -> Iterator[str]:
        """For a person to read."""
        counts = ", ".join(f"{self.outcomes[outcome]:,} {outcome}" for outcome in tables.OUTCOMES)
        yield f"{name}: {counted(self.outcomes.total(), 'record')}: {counts}"
        for kind, count in self.kinds.most_common():
            yield f"{count:>9,}  {kind}"
            for row, reason, payload in self.samples.get(kind, ()):
                value = "(no value)" if payload is None else payload.decode(errors="replace")
                yield f"{'':11}row {row}: {shortened(reason, 400)}  {shortened(value, _PAYLOAD_SHOWN)}"


@click.command(name="try")
@click.argument("pipeline")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--as", "name", metavar="NAME", help="Read FILE as if it had this name, whose ending gives the format.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--samples", type=click.IntRange(0, 1000), default=3, show_default=True, help="Records shown per reason.")
@click.pass_obj
def try_(settings: Settings, pipeline: str, file: Path, name: str | None, form: str, samples: int) -> None:
    """Judge the records of FILE by PIPELINE's definition; nothing is sent, ingested or started.

    PIPELINE is a name, or a definition's own file (*.yaml). FILE `-` is the standard input: JSON lines, unless --as
    says otherwise. Times ahead of the clock are judged as if everything arrived now.

    With --format json an object a record is printed, in order: `row` (from 1), `outcome`, `kind`, `reason`, and the
    event's columns: moments in ISO 8601, decimals as text with all their digits, null where rejected. A field that is
    called `kind` itself is `event.kind` there.

    Exit code 1 where a record is rejected, or the whole file would be set aside.

    \b
    Examples:
      twofold try flights january.csv.gz
      twofold try pipelines/flights.yaml events.jsonl --samples 10
      head -n 100 events.jsonl | twofold try flights -
      twofold try flights - --as rows.csv --format json < rows.csv
    """
    declared = load_file(Path(pipeline)) if pipeline.endswith(SUFFIXES) else load_pipeline(settings, pipeline)
    from_input, shown = file == STANDARD_INPUT, input_name(file)
    read_as = name or ("stdin.jsonl" if from_input else file.name)
    summary = Summary(samples)
    # A file that is set aside in its middle has no rows: they are printed when all of it was read.
    with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, "w+", encoding="utf-8") as rows:
        try:
            with open_input(file) as stream:
                for row, found in judged(declared, readers.read(stream, read_as, declared), summary):
                    if form == "json":
                        plain = _plain(row, found, declared)
                        rows.write(f"{json.dumps(plain, ensure_ascii=False, default=value_text)}\n")
        except readers.SetAside as error:
            click.echo(set_aside(shown, error), err=form == "json")
            sys.exit(1)
        except OSError as error:
            raise unreadable(shown, error) from error
        rows.seek(0)
        for line in summary.lines(shown) if form == "text" else rows:
            click.echo(line.rstrip("\n"))
    sys.exit(1 if summary.outcomes[tables.REJECTED] else 0)


def open_input(file: Path) -> AbstractContextManager[IO[bytes]]:
    """A file, or the standard input, to read its bytes."""
    return nullcontext(standard_input().buffer) if file == STANDARD_INPUT else file.open("rb")


def input_name(file: Path) -> str:
    """What sentences call a file, or the standard input."""
    return "standard input" if file == STANDARD_INPUT else str(file)


def set_aside(shown: str, error: readers.SetAside) -> str:
    """What becomes of a file that cannot be read as what its name says, and why."""
    return f"{shown}: the whole file would be set aside: {error}"


def unreadable(shown: str, error: OSError) -> TwofoldError:
    """The system does not let an input be read."""
    return TwofoldError(f"{shown} cannot be read: {error.strerror or error}", "fix that, and try again")


def judged(declared: Pipeline, pieces: Iterable[Records], summary: Summary) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and row of every event in some records, counted in the summary."""
    judge, now = Judge(declared), datetime.now(UTC)
    for records in pieces:
        for found in judge.parts(records, now):
            for parent, row in zip(found.parents.to_pylist(), found.rows.to_pylist(), strict=True):
                summary.add(records.numbers[parent], row)
                yield records.numbers[parent], row


def _plain(row: int, found: dict[str, Any], declared: Pipeline) -> dict[str, Any]:
    judged = {
        "row": row,
        "outcome": found[tables.OUTCOME],
        "kind": found[tables.REASON_KIND],
        "reason": found[tables.REASON],
    }
    event = {f"event.{name}" if name in judged else name: found[name] for name in declared.columns if name in found}
    return {**judged, **event}
