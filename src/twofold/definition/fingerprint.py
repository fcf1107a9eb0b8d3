"""Short names for what an event's definition decides and for what a view computes.

Equal fingerprints may share state, others may not. They are stored, so they must come out the same in every process
and release: no order of declaration, no `hash()`, no rendered SQL goes in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import date
from decimal import Decimal
from typing import Any

from twofold.definition.model import JSON, KEEP, Field, Files, Pipeline, View
from twofold.definition.time_formats import ISO
from twofold.definition.types import EXACT

_LENGTH = 16

Facts = Mapping[str, Any]
"""Plain JSON values by the key of the definition that declares them, such as `event.fields.gate`."""


def event(pipeline: Pipeline) -> str:
    """Hash of everything that a record's outcome and values depend on."""
    return _digest(event_facts(pipeline))


def view(pipeline: Pipeline, declared: View) -> str:
    """Hash of everything that a view's rows depend on: windows, groups, measures, the lateness of its stream."""
    facts = {
        "id": pipeline.event.key if len(pipeline.event.id) == 1 else pipeline.event.id,
        "time": pipeline.event.time,
        "lateness_s": pipeline.lateness.total_seconds(),
        "window_s": declared.window.total_seconds(),
        "every_s": declared.every.total_seconds(),
        "by": declared.by,
        "measures": {name: measure.declared for name, measure in declared.measures.items()},
    }
    return _digest(facts)


def types(pipeline: Pipeline, declared: View) -> str:
    """Hash of the types of all fields that a view reads: with a wider one, the same expressions give other values."""
    event = pipeline.event
    always, fields = (*event.id, event.time), event.fields.items()
    return _digest({name: str(field.type) for name, field in fields if name in always or declared.reads(name)})


def event_facts(pipeline: Pipeline) -> Facts:
    """What `event` hashes."""
    event = pipeline.event
    facts: dict[str, Any] = {
        # As of one field it always was.
        "event.id": event.key if len(event.id) == 1 else list(event.id),
        "event.time": event.time,
        "event.max_future": event.max_future.total_seconds(),
        "event.id_horizon": event.id_horizon.total_seconds(),
        "event.max_bytes": event.max_bytes,
    }
    topic = pipeline.topic
    wire = {"event.each": event.each and str(event.each), "topic.format": topic.format}
    # What "from the future" means goes by it.
    wire["topic.managed"] = None if topic.managed else "false"
    facts |= {key: value for key, value in wire.items() if value not in (None, JSON)}
    written = asdict(replace(pipeline.files, taken=KEEP))
    if written != asdict(Files()):
        del written["taken"]
        facts["files"] = written
    facts |= {f"event.fields.{name}": _rules(field) for name, field in event.fields.items()}
    return facts | ({"filter": pipeline.filter.declared} if pipeline.filter else {})


def differences(before: Facts, after: Facts) -> list[str]:
    """The differences of two definitions, a clause each.

    >>> differences({"filter": "a", "event.id": "id"}, {"filter": "b", "event.fields.gate": {}, "event.id": "id"})
    ['event.fields.gate was added', 'filter was changed']
    """
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return [f"{key} was {'added' if key not in before else 'changed' if key in after else 'removed'}" for key in keys]


def _rules(field: Field) -> Facts:
    more = {
        "from": str(field.from_) if field.from_ else None,
        "format": field.format if field.format != ISO else None,
        "default": _plain(field.default),
        "is_arrival": field.is_arrival or None,
    }
    return {key: value for key, value in more.items() if value is not None} | {
        "type": str(field.type),
        "required": field.required,
        "min": _plain(field.min),
        "max": _plain(field.max),
        "one_of": sorted((_plain(value) for value in field.one_of), key=json.dumps),
        "pattern": field.pattern,
        "max_length": field.max_length,
    }


def _plain(value: object) -> object:
    """A bound as JSON has it; equal values are written alike.

    >>> _plain(Decimal("1.50")) == _plain(Decimal("1.5")), _plain(-0.0), _plain(date(2024, 1, 31))
    (True, 0.0, '2024-01-31')
    >>> _plain(Decimal("12345678901234567890123456789.01"))
    '12345678901234567890123456789.01'
    """
    match value:
        case Decimal():
            return format(EXACT.add(value.normalize(EXACT), 0), "f")
        case float():
            return value + 0.0
        case date():  # a datetime is one, too
            return value.isoformat()
    return value


def _digest(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:_LENGTH]
