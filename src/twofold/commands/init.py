"""`twofold init`: a first pipeline file from a sample of the events, and what `twofold try` says of it.

file, standard input, topic ─► twofold.draft ─► checked, tried ─► pipelines/NAME.yaml
"""

from __future__ import annotations

import io
import os
import shlex
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import pyarrow as pa

from twofold import kafka, readers, tables
from twofold.commands.try_ import STANDARD_INPUT, Summary, input_name, judged, open_input, set_aside, unreadable
from twofold.contract import reasons
from twofold.definition import names
from twofold.definition.load import SUFFIXES, check_file, clashes, definition_files, shown_path
from twofold.definition.model import Pipeline
from twofold.draft import sample
from twofold.draft.pipeline_text import pipeline_text
from twofold.draft.sample import MOST_BYTES, MOST_RECORDS, Sample
from twofold.errors import TwofoldError, UsageError, first_line, writing_to
from twofold.inbox import format_of
from twofold.readers.csv_rows import AFTER_QUOTE, QUOTE_WITHIN
from twofold.schema_registry import Registry
from twofold.settings import Settings
from twofold.text import counted


@click.command()
@click.argument("name")
@click.option(
    "--from",
    "file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="A file of events, of any format that the inbox takes; `-` is the standard input, JSON lines.",
)
@click.option("--topic", help="A topic of Kafka that has events already.")
@click.option("--as", "named", metavar="NAME", help="Read FILE as if it had this name, whose ending gives the format.")
@click.pass_obj
def init(settings: Settings, name: str, file: Path | None, topic: str | None, named: str | None) -> None:
    """Write the pipeline file NAME from what up to 10,000 events look like.

    The file has types, paths, time formats, a likely id and event time with the reasons, and one view; it passes
    `twofold check`, and what `twofold try` says of the same events is printed. It is a beginning: read it through. A
    file that is there already is never overwritten.

    \b
    Examples:
      twofold init clicks --from clicks.jsonl
      twofold init payments --topic payments
      head -n 1000 export.csv | twofold init orders --from - --as orders.csv
    """
    if (file is None) == (topic is None):
        raise UsageError("one of --from and --topic is needed", "see `twofold init --help`")
    target = _target(settings, name)
    origin = f"topic {topic}" if topic else input_name(file or STANDARD_INPUT)
    summary = Summary(samples_wanted=1)
    try:
        found = _from_topic(settings, topic) if topic else _from_file(file or STANDARD_INPUT, named)
        text = pipeline_text(found, name, datetime.now(UTC), origin=origin, topic=topic)
        pipeline = _checked(settings, target, text)
        for _ in judged(pipeline, found.again(pipeline), summary):
            pass
    except readers.SetAside as error:
        raise TwofoldError(set_aside(origin, error)) from None
    lines = list(summary.lines(origin if found.count < MOST_RECORDS else f"the beginning of {origin}"))
    if summary.outcomes[tables.REJECTED] == summary.outcomes.total() > 0:
        raise TwofoldError("\n".join(["no draft takes any of these records", *lines]), _remedy(summary, found))
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as writing:
            writing.write(text)
    click.echo(f"wrote {shown_path(target)}: {counted(len(pipeline.event.fields), 'field')}")
    for line in lines:
        click.echo(line)
    click.echo(f"next: read it through, then\n{_next(name, file, found)}")


def _remedy(summary: Summary, found: Sample) -> str:
    """What makes records readable, by the fault that most of them have."""
    kind = summary.kinds.most_common(1)[0][0]
    if kind == reasons.ENCODING:
        return "write them as UTF-8, as `iconv -f WINDOWS-1252 -t UTF-8` does with what Excel wrote"
    said = summary.samples[kind][0].reason
    if kind == reasons.MALFORMED and found.is_cells and AFTER_QUOTE not in said and QUOTE_WITHIN not in said:
        return "make the first line that of the columns' names: Excel's `sep=` or a title before it is to be removed"
    return "send or take records that hold what the reasons ask for"


def _next(name: str, file: Path | None, found: Sample) -> str:
    """The commands that follow."""
    if file is None:
        return f"  twofold up && twofold stream {name}"
    shown = shlex.quote("FILE" if _is_pipe(file) else str(file))
    layer = f"produce {name} --from {shown} && twofold stream {name}"
    if not found.documents or not _has_lines(file):
        layer = f"land {name} {shown} && twofold batch {name}"
    return f"  twofold try {name} {shown}\n  twofold up && twofold {layer}"


def _is_pipe(file: Path) -> bool:
    """Whether it can be read once only, whichever way it has been named."""
    return file == STANDARD_INPUT or not file.is_file()


def _has_lines(file: Path) -> bool:
    """Whether a JSON file has a record a line, as the producer sends them; not an array, nor UTF-16."""
    if _is_pipe(file):
        return True
    with file.open("rb") as stream:
        head = stream.read(64).lstrip()
    return head.startswith(b"{") and b"\0" not in head


def _target(settings: Settings, name: str) -> Path:
    """Where the file goes; UsageError where the name is none, or a file has it."""
    if fault := names.pipeline_fault(name):
        raise UsageError(f"{name!r} cannot be a pipeline's name: expected {fault}", "choose another name")
    for suffix in SUFFIXES:
        if os.path.lexists(path := settings.pipelines / f"{name}{suffix}"):
            raise UsageError(f"{shown_path(path)} is there already", "choose another name, or move it away")
    return settings.pipelines / f"{name}.yaml"


def _from_file(file: Path, named: str | None) -> Sample:
    shown, is_pipe = input_name(file), _is_pipe(file)
    name = "stdin.jsonl" if is_pipe and format_of(file.name) is None else file.name
    try:
        if not is_pipe:
            return sample.of_file(lambda: file.open("rb"), named or name)
        with open_input(file) as stream:
            content = stream.read(MOST_BYTES)
        is_cut = len(content) == MOST_BYTES
        if is_cut:
            content = content[: content.rfind(b"\n") + 1] or content
        return sample.of_file(lambda: io.BytesIO(content), named or name, is_cut=is_cut)
    except pa.ArrowException as error:
        raise TwofoldError(f"{shown} is no Parquet: {first_line(error)}", "write the file again") from None
    except OSError as error:
        raise unreadable(shown, error) from error


def _from_topic(settings: Settings, topic: str) -> Sample:
    records = kafka.newest(settings, topic, MOST_RECORDS)
    if not records:
        raise UsageError(f"topic {topic} holds no records", "wait until it has some, or give a file by --from")
    return sample.of_records(records, Registry.of(settings).schema)


def _checked(settings: Settings, target: Path, text: str) -> Pipeline:
    """The pipeline that the text declares; TwofoldError where it cannot be beside those that are there."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / target.name
        draft.write_text(text, encoding="utf-8")
        pipeline, faults = check_file(draft)
    if pipeline is None:
        said = "".join(f"\n  {replace(fault, file='the draft')}" for fault in faults)
        raise TwofoldError(f"the draft of {shown_path(target)} is not sound:{said}", "report it, with these lines")
    others = definition_files(target.parent) if os.access(target.parent, os.R_OK) else []
    sound = [(path, found) for path in others if (found := check_file(path)[0])]
    for fault in clashes([*sound, (target, pipeline)]):
        if fault.file == shown_path(target):
            said = f"{pipeline.name} cannot be beside the other pipelines: its {fault.path} would be {fault.found}"
            raise TwofoldError(said, "choose another name, or another topic")
    return pipeline
