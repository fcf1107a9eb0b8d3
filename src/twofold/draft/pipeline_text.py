"""The pipeline file of a sample: its fields under legal names, its choices with their reasons, as YAML.

Sample ─► batches taken apart? ─► columns ─► names, kinds ─► roles ─► text, which a person edits

n, t_ms, user ─► roles: id [user, n]: unique together; time t_ms: the only moment; view: per hour, by user
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

from twofold.definition import names
from twofold.definition.field_source import KEY, FieldSource, parse_path
from twofold.definition.model import JSON, Files
from twofold.definition.time_formats import ISO
from twofold.definition.types import FieldType
from twofold.draft.kinds import TIME_WORDS, Kind, kind_of, moment, nearly, vocabulary, words
from twofold.draft.sample import Sample
from twofold.draft.shapes import MOST_COLUMNS, Column, around, batch_path, columns, elements, tree
from twofold.errors import UsageError
from twofold.text import counted, printable

_BATCHES = vocabulary("batch data entries events items logs messages records results rows values")
_MOST_BYTES = 1 << 20
_TAKEN = names.RESERVED_COLUMNS | names.ICEBERG_COLUMNS | {names.ARRIVAL, names.PARTITION_OF_WINDOWS, "arrival", "none"}
_LEFT_OUT = "rare, links, too many, no text (durations, bytes), or have no name of their own that a path can have"
_BATCH = "every record is a batch: each element of this array is an event"
_LONGEST = 56
_PLAIN = re.compile(r"(\$\.)?[A-Za-z_][A-Za-z0-9_]*([./ -][A-Za-z0-9_]+)*")
_WORDS = vocabulary("true false null yes no on off y n")
_NOT_IN_YAML = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_ID_WORDS = vocabulary("id oid uid uuid guid key ref number no nr seq sequence offset index line position code")
_IDS = ("event", "message", "record", "uuid", "guid", "id", "oid")
_SEQUENCE = vocabulary("seq sequence number no nr offset index line position partition")
_OF_OTHERS = vocabulary("updated modified received expires expiry due until end ended birth processed ingested")
_OF_EVENTS = vocabulary("event occurred happened created sent measured recorded logged")
_GROUP_WORDS = vocabulary("type kind action status state event category country level method origin source")
_OTHER_NUMBERS = vocabulary("version lat lon lng latitude longitude port zip year month hour minute")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_FEW = 20
_MOST_PARTS = 12
_MOST_GROUPS = 50
_SPAN_WINDOWS = ((timedelta(hours=2), "1 minute"), (timedelta(days=4), "1 hour"))


@dataclass
class Drafted:
    """A column with the name and the type that it gets."""

    name: str
    column: Column
    kind: Kind
    required: bool


@dataclass(frozen=True)
class Choice:
    """Names of fields, none for none, and why."""

    names: tuple[str, ...]
    why: str


def pipeline_text(sample: Sample, name: str, now: datetime, *, origin: str, topic: str | None) -> str:
    """The file for a pipeline `name`; `topic` is one that exists already. UsageError where there is nothing to see."""
    each, found, left_out = _columns(sample, now)
    fields = _fields(found, cells=sample.is_cells)
    if left_out and not fields:
        raise UsageError(
            f"{origin} has no field with a name of its own that a path can have, and with values that have a text",
            "name each otherwise, without quotation marks, backslashes and control characters; write bytes in base64",
        )
    if not fields:
        raise UsageError(
            f"{origin} has no record with a field, among {counted(sample.count, 'record')}",
            "give it JSON objects, one a line or in an array, or a CSV or Parquet file with rows",
        )
    time = _event_time(fields, now)
    identity = _event_id(fields, in_elements=bool(each))
    fields, identity = _with_key(fields, identity)
    for field in fields:
        if field.name in (*time.names, *identity.names):
            field.required = True
        if field.name in time.names:
            field.kind = replace(field.kind, type=FieldType("timestamp"))
    lines = [
        f"# Drafted by `twofold init` from {counted(sample.count, 'record')} of {printable(origin)}. Read it through:",
        "# the reasons are in the comments, and docs/definition.md has every key.",
        f"name: {name}",
        _topic(name, sample, topic),
        "event:",
        *_identity(identity),
        f"  time: {scalar(time.names[0]) if time.names else 'arrival'}   # {printable(time.why)}",
        *([f"  each: {_path(FieldSource(each))}   # {_BATCH}"] if each else []),
        *_size(sample.largest_bytes),
        "  fields:",
        *(f"    {line}" for line in _declared(fields)),
        *([f"    # left out, as they are {_LEFT_OUT}: {counted(left_out, 'key')}"] if left_out else []),
        *_files(sample.files),
        "lateness: 10 minutes   # how much later than its window's end an event still counts in the stream; later ones",
        "                       # are healed by the next union",
        '# filter: "…"          # a condition over the fields, for valid events that are not wanted',
        *_view(fields, time, identity),
    ]
    return "\n".join(lines) + "\n"


def _columns(sample: Sample, now: datetime) -> tuple[tuple[str, ...], list[Column], int]:
    """The array of which each element is an event, if there is one; the columns; how many keys were left out."""
    if not sample.documents:
        return (), list(sample.columns[:MOST_COLUMNS]), max(len(sample.columns) - MOST_COLUMNS, 0) + sample.unnamed
    whole, dropped = columns(sample.documents)
    path = batch_path(tree(sample.documents))
    whole = [*whole, *sample.beside]
    if path is None:
        return (), whole, dropped
    batches = [(document, each) for document in sample.documents if (each := elements(document, path))]
    parents, sizes = [document for document, _ in batches], [len(each) for _, each in batches]
    outer, _ = columns(parents, sizes, without=path, most=MOST_COLUMNS // 3)
    inner, dropped_of_each = columns([one for _, each in batches for one in each], most=MOST_COLUMNS - len(outer))
    outer = around(outer)
    if not _are_events(path[-1], _fields(outer), _fields(inner), now):
        return (), whole, dropped
    return path, [*inner, *outer], dropped_of_each


def _are_events(key: str, outer: Sequence[Drafted], inner: Sequence[Drafted], now: datetime) -> bool:
    """Whether the elements are events, rather than parts of one: the record around them has no time, or is a batch."""
    if not inner or not any(field.kind.type.name != "json" for field in outer):
        return bool(inner)
    timed = bool(_event_time(inner, now).names)
    return timed and (bool(set(words(key)) & _BATCHES) or not _event_time(outer, now).names)


def _with_key(fields: list[Drafted], identity: Choice) -> tuple[list[Drafted], Choice]:
    """Without Kafka's key, unless it tells events apart; said where it is the id."""
    key = next((field for field in fields if field.column.source == KEY), None)
    if key is None or key.name in identity.names:
        return fields, identity
    texts = [
        [value and value.text for value in field.column.values] for field in fields if field.name in identity.names
    ]
    if texts == [[value and value.text for value in key.column.values]]:
        identity = replace(identity, why=f"{identity.why}; Kafka's key is the same")
    return [field for field in fields if field is not key], identity


def _fields(found: Sequence[Column], *, cells: bool = False) -> list[Drafted]:
    used: set[str] = set()
    fields = []
    for column in found:
        name = legal(column.source, used)
        used.add(name)
        kind = column.kind or kind_of(column.found, column.key, cells=cells)
        fields.append(Drafted(name, column, kind, column.is_always_there))
    return fields


def legal(source: FieldSource, used: set[str]) -> str:
    """A name for the value at a path, which no other has.

    >>> legal(FieldSource(("payload", "userName")), set()), legal(FieldSource(("@timestamp",)), {"timestamp"})
    ('payload_user_name', 'timestamp_2')
    """
    keys = [str(step) for step in source.steps] or [source.header or source.kind]
    plain = keys[0] if len(keys) == 1 and not names.field_fault(keys[0]) else "_".join(map(_snake, keys)).strip("_")
    name = plain[-_LONGEST:].lstrip("_") or "value"
    name = f"f_{name}"[:_LONGEST] if name[0].isdigit() else name
    name = f"{name}_" if name in _TAKEN or name.startswith(names.GENERATED) else name
    number, free = 2, name
    while free in used:
        free, number = f"{name[: _LONGEST - 4]}_{number}", number + 1
    return free


def _snake(key: str) -> str:
    ascii_key = unicodedata.normalize("NFKD", key).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", ascii_key).lower()).strip("_")


def _topic(name: str, sample: Sample, topic: str | None) -> str:
    form = f", format: {sample.format}" if sample.format != JSON else ""
    if topic is None:
        return f"topic: {{name: {scalar(name)}, partitions: 1{form}}}"
    return f"topic: {{name: {scalar(topic)}, managed: false{form}}}   # it is there already: only read, never changed"


def _identity(identity: Choice) -> Iterator[str]:
    listed = ", ".join(map(scalar, identity.names))
    if not identity.names:
        yield f"  # {printable(identity.why)}."
        yield "  # Then a record that is sent twice is two events: name a field, or a list of fields, if you can."
    shown = f"[{listed}]" if len(identity.names) > 1 else listed or "none"
    yield f"  id: {shown}" + (f"   # {printable(identity.why)}" if identity.names else "")


def _size(largest: int) -> Iterator[str]:
    if largest * 2 > _MOST_BYTES:
        yield f"  max_bytes: {min(largest * 4, 1 << 30)}   # the largest in the sample has {largest:,}"


def _declared(fields: Sequence[Drafted]) -> Iterator[str]:
    width = max(len(scalar(field.name)) for field in fields) + 1
    for field in fields:
        keys = {"type": scalar(str(field.kind.type))}
        if field.required:
            keys["required"] = "true"
        if field.column.source != FieldSource((field.name,)):
            keys["from"] = _path(field.column.source)
        if field.kind.format != ISO:
            keys["format"] = scalar(field.kind.format)
        inner = ", ".join(f"{key}: {value}" for key, value in keys.items())
        note = f"   # {printable(field.kind.note)}" if field.kind.note else ""
        yield f"{scalar(field.name) + ':':{width}} {{{inner}}}{note}"


def _path(source: FieldSource) -> str:
    """A path as a text where it can be one, else as the list of its keys; Kafka's key, a header."""
    if not source.in_value:
        return f"{{header: {scalar(source.header)}}}" if source.header else "{key: true}"
    try:
        if parse_path(str(source)) == source:
            return scalar(str(source))
    except ValueError:
        pass
    return f"[{', '.join(scalar(step) if isinstance(step, str) else str(step) for step in source.steps)}]"


def _files(files: Files) -> Iterator[str]:
    declared: dict[str, Any] = {key: value for key, value in vars(files).items() if value != getattr(Files(), key)}
    if declared:
        inner = ", ".join(
            f"{key}: [{', '.join(map(scalar, value))}]" if isinstance(value, tuple) else f"{key}: {scalar(value)}"
            for key, value in declared.items()
        )
        yield f"files: {{{inner}}}   # how the CSV files are written"


def _view(fields: Sequence[Drafted], time: Choice, identity: Choice) -> Iterator[str]:
    taken = (*time.names, *identity.names)
    by = _group(fields, taken)
    view = f"by_{by}" if by and not names.view_fault(f"by_{by}") else "all_events"
    timed = next((field for field in fields if field.name in time.names), None)
    yield "views:"
    yield f"  {view}:"
    yield f"    window: {_window(timed)}"
    if by:
        yield f"    by: [{scalar(by)}]"
    yield "    measures:"
    for name, measure in _measures(fields, taken).items():
        yield f"      {name if name != by else f'{name}_'}: {json.dumps(measure)}"


def scalar(text: str) -> str:
    r"""A text as YAML has it, within { } too.

    >>> scalar("payload.user"), scalar("no"), scalar("a, b\n")
    ('payload.user', '"no"', '"a, b\\n"')
    """
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def _event_time(fields: Sequence[Drafted], now: datetime) -> Choice:
    """The field of the event time: one that every record has, and that lies in the past, a moment rather than a day."""
    found = sorted((field for field in fields if _is_time(field, now)), key=_time_rank)
    if not found:
        return Choice((), "no field is a moment of the past in every record: when a record arrives counts as its time")
    best, *others = found
    if not others:
        return Choice((best.name,), "the only field that is a moment of the past in every record")
    possible = ", ".join(field.name for field in others[:5])
    return Choice((best.name,), f"by its name and place; also possible: {possible}")


def _is_time(field: Drafted, now: datetime) -> bool:
    if field.kind.type.name not in ("timestamp", "date"):
        return False
    moments = [moment(field.kind, value) for value in field.column.found]
    latest, floor = now + timedelta(minutes=5), datetime(1970, 1, 1, tzinfo=UTC)
    wrong = sum(one is None or not floor <= one <= latest for one in moments)
    missing = len(field.column.values) - len(moments)
    return bool(moments) and nearly(wrong + missing, len(field.column.values), few=4)


def _time_rank(field: Drafted) -> tuple[bool, int, int]:
    named = set(words(field.column.key))
    kind = 0 if named & _OF_EVENTS or named <= TIME_WORDS - _OF_OTHERS else 1
    return field.kind.type.name == "date", 2 if named & _OF_OTHERS else kind, field.column.depth


def _event_id(fields: Sequence[Drafted], *, in_elements: bool = False) -> Choice:
    """The fields that are different in different records: one that is called so, else two or three together."""
    # One record sent twice may have two keys, or headers such as that of its delivery.
    count = _distinct([field for field in fields if field.column.source.in_value])
    possible = sorted((field for field in fields if _may_be_id(field)), key=_id_rank)
    # Values of the record around an element are the same for all its elements.
    own = [field for field in possible if not (in_elements and field.column.source.whole)]
    for field in own:
        if _distinct([field]) == count:
            return Choice((field.name,), f"no two of {count} different records have the same")
    for size in (2, 3):
        for together in combinations(possible[:_MOST_PARTS], size):
            if any(field in own for field in together) and _distinct(together) == count:
                return Choice(tuple(field.name for field in together), f"unique only together, in {count} records")
    said = ", ".join(f"{field.name} has {_distinct([field])} values" for field in possible[:3])
    return Choice((), f"no field called like an id is unique in {count} different records{said and ': '}{said}")


def _may_be_id(field: Drafted) -> bool:
    named = words(field.column.key)
    fits = field.kind.type.name in ("string", "int", "long")
    called = bool(_ID_WORDS & set(named)) or all(_UUID.fullmatch(value.text) for value in field.column.found[:_FEW])
    return fits and field.column.is_always_there and called


def _id_rank(field: Drafted) -> tuple[int, int, int]:
    named = words(field.column.key)
    first = 0 if named == ["id"] or (named[-1] in ("id", "oid", "uid", "uuid", "guid") and named[0] in _IDS) else 1
    if first and (set(named) & _SEQUENCE or "code" in named):
        first = 2
    return field.column.depth, first, len(named)


def _distinct(fields: Sequence[Drafted]) -> int:
    return len(set(zip(*(field.column.values for field in fields), strict=True)))


def _group(fields: Sequence[Drafted], taken: Sequence[str]) -> str:
    """A field of few values to group a view by; empty if there is none."""
    found = [field for field in fields if field.name not in taken and _groups(field)]
    found.sort(key=lambda field: (not set(words(field.column.key)) & _GROUP_WORDS, field.column.depth))
    return found[0].name if found else ""


def _groups(field: Drafted) -> bool:
    if field.kind.type.name not in ("string", "boolean", "int", "long") or not field.required:
        return False
    is_word = field.kind.type.name == "string" or set(words(field.column.key)) & _GROUP_WORDS
    most = min(_MOST_GROUPS, max(2, len(field.column.values) // 2))
    return bool(is_word) and 1 < len(set(field.column.found)) <= most


def _measures(fields: Sequence[Drafted], taken: Sequence[str]) -> dict[str, str]:
    """The count of events, and what sums or means two of their numbers have."""
    found = {"events": "count(*)"}
    numbers = [field for field in fields if field.name not in taken and _adds_up(field)]
    for field in sorted(numbers, key=lambda field: field.column.depth)[:2]:
        is_level = field.kind.type == FieldType("double") or any(value.text[:1] == "-" for value in field.column.found)
        function = "avg" if is_level else "sum"
        found[f"{function}_{field.name}"] = f"{function}(`{field.name}`)"
    return found


def _adds_up(field: Drafted) -> bool:
    """Whether it is a quantity: no id, no code, no coordinate."""
    if not field.kind.type.is_number or not field.column.found:
        return False
    return not set(words(field.column.key)) & (_ID_WORDS | TIME_WORDS | _GROUP_WORDS | _SEQUENCE | _OTHER_NUMBERS)


def _window(field: Drafted | None) -> str:
    """A window of which the sample has several."""
    moments = [one for value in field.column.found if (one := moment(field.kind, value))] if field else []
    span = max(moments) - min(moments) if moments else timedelta(days=1)
    return next((size for most, size in _SPAN_WINDOWS if span < most), "1 day")
