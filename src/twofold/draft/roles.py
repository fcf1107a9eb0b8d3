"""Which columns tell events apart, say when they happened, and are worth a view; each with the reason.

n, t_ms, user ─► id [user, n]: unique together; time t_ms: the only moment; view: per hour, by user
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations

from twofold.definition.types import FieldType
from twofold.draft.kinds import TIME_WORDS, Kind, moment, nearly, vocabulary, words
from twofold.draft.shapes import Column

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


def event_time(fields: Sequence[Drafted], now: datetime) -> Choice:
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


def event_id(fields: Sequence[Drafted], *, in_elements: bool = False) -> Choice:
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


def group(fields: Sequence[Drafted], taken: Sequence[str]) -> str:
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


def measures(fields: Sequence[Drafted], taken: Sequence[str]) -> dict[str, str]:
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


def window(field: Drafted | None) -> str:
    """A window of which the sample has several."""
    moments = [one for value in field.column.found if (one := moment(field.kind, value))] if field else []
    span = max(moments) - min(moments) if moments else timedelta(days=1)
    return next((size for most, size in _SPAN_WINDOWS if span < most), "1 day")
