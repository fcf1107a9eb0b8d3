"""Elements of arrays as events: the records of a pipeline that has `event.each`, taken apart.

{"at": 1, "items": [{"id": 7}, {"id": 8}]}, each: items ─► {"id": 7} number 1, {"id": 8} number 2
no array, an empty one, or a record that is no JSON     ─► one row, number 0
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from twofold.contract import reasons
from twofold.contract.literals import OtherShape, elements, follow
from twofold.contract.reasons import Reason
from twofold.contract.records import ElementRecords, JsonRecords
from twofold.contract.reference import Reference
from twofold.definition.field_source import FieldSource


def expanded(records: JsonRecords, each: FieldSource, reference: Reference) -> ElementRecords:
    """A row for every element of the array at `each`, in order, and one for each record without any."""
    values: list[bytes | None] = []
    numbers: list[int] = []
    parents: list[int] = []
    faults: dict[int, Reason] = {}
    for index, value in enumerate(records.values):
        found = records.faults.get(index) or _elements(value, each, reference)
        if isinstance(found, Reason):
            faults[len(values)] = found
            found = []
        rows: Iterator[tuple[int, bytes | None]] = enumerate(found, 1) if found else iter([(0, None)])
        for number, text in rows:
            values.append(text)
            numbers.append(number)
            parents.append(index)
    return ElementRecords(values, numbers, parents, records, faults)


def _elements(value: bytes | None, each: FieldSource, reference: Reference) -> list[bytes] | Reason:
    """The texts of the elements, none where there is no array; or why the record cannot be read."""
    fault = reference.no_object(value)
    if fault is not None or value is None:
        return fault or reasons.empty()
    try:
        token = follow(value, each)
        if token == b"null":
            return []
        if token[:1] != b"[":
            raise OtherShape(each, "an array", token)
        return elements(token)
    except OtherShape as error:
        return reasons.wrong_shape("event.each", str(error.place), error.wanted, error.token.decode())
    except (msgspec.DecodeError, RecursionError) as error:
        return reasons.not_json(str(error))
