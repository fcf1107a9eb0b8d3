"""A rejected row as the text that is fixed and goes through again: what it keeps, without what would come twice.

With `event.each` every rejected element keeps its whole record: of that only the rejected elements are written, as the
others are landed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from twofold.contract.kafka_records import PREFIX_BYTES
from twofold.contract.literals import elements
from twofold.definition.field_source import Step
from twofold.definition.model import AVRO, Pipeline
from twofold.errors import TwofoldError


def text_of(pipeline: Pipeline, payload: bytes | None, numbers: Sequence[int]) -> bytes | None:
    """Of what a record keeps; `numbers` are those of its rejected elements, [0] of a record that is one itself."""
    each = pipeline.event.each
    if not payload or each is None or not numbers[0]:
        return payload
    has_prefix = payload.startswith(b"\0")
    if has_prefix and pipeline.topic.format == AVRO:
        return payload
    prefix = payload[:PREFIX_BYTES] if has_prefix else b""
    try:
        return prefix + _with_elements(payload[len(prefix) :], each.steps, numbers)
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
