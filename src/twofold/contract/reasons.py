"""Why a record is rejected: a kind, which is a word of a short fixed list, and a sentence.

Nothing parses a sentence: code that needs the kind reads it from the column beside it. The sentences of a field's rules
are `twofold.contract.reference`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from twofold.definition.field_source import FieldSource
from twofold.errors import first_line

EMPTY = "empty"
TOO_LARGE = "too_large"
ENCODING = "encoding"
NOT_JSON = "not_json"
MALFORMED = "malformed"
MISSING = "missing"
WRONG_TYPE = "wrong_type"
OUT_OF_RANGE = "out_of_range"
NOT_ALLOWED = "not_allowed"
PATTERN = "pattern"
TOO_LONG = "too_long"
FUTURE = "future"
NOT_JUDGED = "not_judged"

KINDS = (
    EMPTY, TOO_LARGE, ENCODING, NOT_JSON, MALFORMED, MISSING, WRONG_TYPE, OUT_OF_RANGE, NOT_ALLOWED, PATTERN, TOO_LONG,
    FUTURE, NOT_JUDGED,
)  # fmt: skip

SHOWN_CHARACTERS = 40
"""How much of a value a sentence quotes."""


class Reason(NamedTuple):
    """One way in which a record breaks the contract."""

    kind: str
    text: str


def joined(faults: Iterable[Reason]) -> Reason:
    """All faults of a record as one: the kind of the first, the sentences of all.

    >>> joined([missing("id"), missing("at")])
    Reason(kind='missing', text='missing id; missing at')
    """
    found = list(faults)
    return Reason(found[0].kind, "; ".join(fault.text for fault in found))


def shown(value: object) -> str:
    """The beginning of a value, for a sentence."""
    return str(value)[:SHOWN_CHARACTERS]


def empty() -> Reason:
    """A record without a value, or of blanks only."""
    return Reason(EMPTY, "empty: the record has no value")


def too_large(size_bytes: int, limit_bytes: int) -> Reason:
    """A record above `event.max_bytes`."""
    return Reason(TOO_LARGE, f"too large: {size_bytes} bytes, the limit is {limit_bytes}")


def not_utf8() -> Reason:
    """Bytes that are no UTF-8."""
    return Reason(ENCODING, "unknown encoding: not UTF-8")


def not_json(why: str = "") -> Reason:
    """What is not exactly one JSON object."""
    return Reason(NOT_JSON, f"not JSON: expected one object{why and f'; {why}'}")


def malformed(why: str) -> Reason:
    """A row of a file that does not have the file's own form, such as a CSV row with too many cells."""
    return Reason(MALFORMED, f"malformed row: {why}")


def no_schema_id() -> Reason:
    """A value of Kafka that does not begin with the magic byte 0 and the four bytes of a schema's id."""
    return Reason(MALFORMED, "malformed value: expected the byte 0 and a schema id of 4 bytes at its beginning")


def not_of_schema(number: int, why: str) -> Reason:
    """A value of Kafka that cannot be read by the schema that it names."""
    return Reason(MALFORMED, f"malformed value: schema {number}: {why}")


def missing(field: str) -> Reason:
    """A required field that is not there, or null."""
    return Reason(MISSING, f"missing {field}")


def wrong_type(field: str, kind: str, value: object) -> Reason:
    """A value that is none of the declared type.

    >>> wrong_type("n", "int", "x").text
    'n is not an int: x'
    """
    return Reason(WRONG_TYPE, f"{field} is not {'an' if kind[0] in 'aeiou' else 'a'} {kind}: {shown(value)}")


def wrong_shape(field: str, path: FieldSource, taken: int, value: object) -> Reason:
    """A path that meets a value of another shape after some steps; after all of them an array is wanted.

    >>> wrong_shape("user (payload.user)", FieldSource(("payload", "user")), 1, "[1]").text
    'user (payload.user): payload is not an object: [1]'
    """
    place = replace(path, steps=path.steps[:taken])
    wanted = "an object" if isinstance((*path.steps, 0)[taken], str) else "an array"
    return Reason(WRONG_TYPE, f"{field}: {place} is not {wanted}: {shown(value)}")


def not_judged(error: BaseException) -> Reason:
    """A record on which the code itself failed: it is kept with the error, so that it stops nothing else."""
    return Reason(NOT_JUDGED, f"not judged: {type(error).__name__}: {first_line(error)}")
