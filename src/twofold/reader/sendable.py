"""A rejected row as the text that is fixed and goes through again: what it keeps, without what would come twice.

With `event.each` every rejected element keeps its whole record: of that only the rejected elements are written, as the
others are landed.

Rows of CSV and Parquet are kept as their cells. They are written as the JSON that is read to the same values:

    files: {null_values: ["-"], decimal: ","}         {"n": "x5", "at": "-", "price": "1,5", "geo.country": "DE"}
    country: {from: geo.country}                  ─►  {"n": "x5", "at": null, "price": "1.5", "geo": {"country": "DE"}}

What JSON would read, and a row may not have (the number 1.5 beside the sign `,`), has a `?` before it: a line with that
is no JSON until somebody decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from twofold import inbox
from twofold.contract.kafka_records import PREFIX_BYTES
from twofold.contract.literals import elements, is_json
from twofold.definition.field_source import Step
from twofold.definition.model import AVRO, CONFLUENT_JSON, Field, Files, Pipeline
from twofold.definition.time_formats import EPOCHS
from twofold.errors import TwofoldError

_Tree = dict[Step, Any]
"""Steps of paths → cells as JSON has them, or trees of their own."""


def text_of(pipeline: Pipeline, payload: bytes | None, numbers: Sequence[int], file: str = "") -> bytes | None:
    """Of what a record keeps; `numbers` are those of its rejected elements, [0] of a record that is one itself.

    `file` is the name of the file that it comes from, if it does.
    """
    each, form = pipeline.event.each, inbox.format_of(file)
    if payload and form is not None and form.kind != "json":
        return _of_cells(pipeline, payload, pipeline.files if form.kind == "csv" else Files())
    if payload and not file and payload.startswith(b"\0"):
        if pipeline.topic.format == AVRO:
            return payload
        # The producer puts the prefix before each line again, and files have none.
        if pipeline.topic.format == CONFLUENT_JSON and len(payload) > PREFIX_BYTES:
            payload = payload[PREFIX_BYTES:]
    if not payload or each is None or not numbers[0]:
        return payload
    try:
        return _with_elements(payload, each.steps, numbers)
    except (LookupError, msgspec.DecodeError):
        remedy = "declare it as it was when they were landed, or write those of the other layer by --layer"
        raise TwofoldError(f"rejected elements of a record are not found at event.each, {each}", remedy) from None


def _with_elements(text: bytes, steps: Sequence[Step], numbers: Sequence[int]) -> bytes:
    """A JSON text of whose array at a path only some elements are left, by their numbers from 1.

    >>> _with_elements(b'{"a": 1.50, "b": [{"n": [1, 2 , 3]}]}', ("b", 0, "n"), [1, 3])
    b'{"a":1.50,"b":[{"n":[1, 3]}]}'
    """
    if not steps:
        found = elements(text)
        return b"[" + b", ".join(found[number - 1] for number in numbers) + b"]"
    kind: Any = dict[str, msgspec.Raw] if isinstance(steps[0], str) else list[msgspec.Raw]
    inside = msgspec.json.decode(text, type=kind)
    inside[steps[0]] = msgspec.Raw(_with_elements(bytes(inside[steps[0]]), steps[1:], numbers))
    return msgspec.json.encode(inside)


def _of_cells(pipeline: Pipeline, payload: bytes, files: Files) -> bytes:
    try:
        cells = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return payload  # a row that is malformed is kept as it was
    fields = [one for one in pipeline.event.fields.values() if one.is_in_cells]
    firsts = {one.source.steps[0] for one in fields}
    with_values = {name for name, cell in cells.items() if bytes(cell)[:1] in (b"{", b"[")}
    tree: _Tree = {}
    for column, cell in cells.items():
        found = [one for one in fields if one.source.column == column]
        if column in with_values or not (found or column in firsts):
            tree[column] = bytes(cell)  # what lies within it is read as in JSON, and nothing where none is declared
            continue
        for field in found:
            steps = field.source.steps
            # Of a path, what lies within the column of its first key counts before the column of its whole name.
            if len(steps) > 1 and steps[0] in with_values:
                continue
            if not _put(tree, steps, _cell(field, bytes(cell), files)):
                return b"?" + payload
    return _text(tree)


def _cell(field: Field, cell: bytes, files: Files) -> bytes:
    """A cell as JSON has it, as `csv_rows` and the contract read it."""
    if not cell.startswith(b'"'):
        return cell
    text = msgspec.json.decode(cell, type=str)
    if text in files.null_values:
        return b"null"
    if field.type.name == "boolean" and text in (*files.false_values, *files.true_values):
        return b"false" if text in files.false_values else b"true"
    if field.type.name == "json":
        return text.encode() if is_json(text) else b"?" + cell
    if files.decimal == "," and (field.type.is_number or field.format in EPOCHS):
        return b"?" + cell if "." in text or text.count(",") > 1 else cell.replace(b",", b".")
    return cell


def _put(tree: _Tree, steps: Sequence[Step], cell: bytes) -> bool:
    """Put a cell at its path; False where another one is in the way."""
    for step in steps[:-1]:
        if any(type(key) is not type(step) for key in tree):
            return False
        inner = tree.setdefault(step, {})
        if not isinstance(inner, dict):
            return False
        tree = inner
    last = steps[-1]
    if isinstance(tree.get(last), dict) or any(type(key) is not type(last) for key in tree):
        return False
    tree[last] = cell
    return True


def _text(tree: _Tree | bytes) -> bytes:
    """A tree as JSON.

    >>> _text({"a": {1: {"b": b"1"}}, "c": b"null"})
    b'{"a": [null, {"b": 1}], "c": null}'
    """
    if isinstance(tree, bytes):
        return tree
    if places := [step for step in tree if isinstance(step, int)]:
        return b"[" + b", ".join(_text(tree.get(place, b"null")) for place in range(max(places) + 1)) + b"]"
    return b"{" + b", ".join(msgspec.json.encode(step) + b": " + _text(one) for step, one in tree.items()) + b"}"
