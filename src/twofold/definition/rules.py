"""What a definition must keep beyond the single value: fields and their rules, windows, roles, expressions.

Takes what `keys` read, where None stands for what is at fault already, and gives the whole pipeline, its bounds of
their fields' types and its expressions checked.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

from twofold.definition import names
from twofold.definition.expressions import CheckedExpression, E, check_filter, check_measure
from twofold.definition.fault import KeyPath, Report, near_miss, one_of, shown
from twofold.definition.field_source import EXPECTED_EACH, EXPECTED_PATH, FieldSource
from twofold.definition.keys import QUOTES
from twofold.definition.model import (
    REQUIRED_SETTINGS,
    Event,
    Field,
    Files,
    Limits,
    Measure,
    Pipeline,
    Replay,
    Topic,
    View,
)
from twofold.definition.renderer import Columns
from twofold.definition.time_formats import ISO
from twofold.definition.types import FieldType, format_duration, matches_whole, typed_value

_CONFLICTS = (*((key, "generate") for key in ("source", "query", "since", "until", "speed_up")), ("speed_up", "rate"))
"""Keys of `replay` of which one at most makes sense."""
_ID_TYPES, _TIME_TYPES = ("string", "int", "long"), ("timestamp",)
_BOUNDED = ("int", "long", "double", "decimal", "timestamp", "date")
_TIMES = ("timestamp", "date")
_APPLIES = {
    "min": _BOUNDED,
    "max": _BOUNDED,
    "one_of": ("string", "int", "long", "decimal", "date"),
    "pattern": ("string",),
    "max_length": ("string",),
}
"""The types for which each rule of a field makes sense."""
_ARRIVAL = Field(names.ARRIVAL, FieldType("timestamp"), required=True, is_arrival=True)
_SECOND = timedelta(seconds=1)
_MOST_WINDOWS = 1000
"""Windows that one event may fall into: each is a row of state and an addition."""


def check_whole(declared: Pipeline, report: Report) -> Pipeline | None:
    """Check a definition; None if `report` has any fault in the end."""
    columns: Columns = None
    event, condition = declared.event, declared.filter
    if event is not None and event.fields is not None:
        columns = _columns(event, report)
        event = _event(event, report)
    if declared.topic is not None:
        _check_topic(declared.topic, report)
    _check_files(declared.files, report)
    if condition is not None:
        condition = _noted(check_filter(condition.declared, columns), ("filter",), report)
    views = {name: checked_view(view, columns, report) for name, view in declared.views.items()}
    if declared.replay is not None:
        _check_replay(declared.replay, report)
    _check_limits(declared.limits, report)
    return None if report.faults else replace(declared, event=event, filter=condition, views=views)


def _check_files(files: Files, report: Report) -> None:
    for index, name in enumerate(files.header):
        if name in files.header[:index]:
            report.add(("files", "header", index), f"{shown(name)} again", "each column once")
    for text in set(files.true_values) & set(files.false_values):
        report.add(("files", "false_values"), f"{shown(text)} also in true_values", "each text in one of them")


def _noted(checked: CheckedExpression[E], path: KeyPath, report: Report) -> E | None:
    for problem in checked.problems:
        report.add(path, *problem)
    return checked.expression


def _columns(event: Event, report: Report) -> dict[str, FieldType | None]:
    """Declared fields with their types, as far as they are known; fields at fault count as declared."""
    declared = [path[2] for path in report.places if path[:2] == ("event", "fields") and len(path) == 3]
    columns = {str(name): event.fields[name].type if name in event.fields else None for name in declared}
    return {**columns, names.ARRIVAL: _ARRIVAL.type} if _is_arrival(event) else columns


def _check_topic(topic: Topic, report: Report) -> None:
    if not topic.managed:
        for key in ("partitions", "replication", "settings"):
            if ("topic", key) in report.places:
                report.add_key(
                    ("topic", key), f"`{key}` of a topic with `managed: false`", "no such key: it is only read"
                )
        if ("replay",) in report.places:
            report.add_key(("replay",), "`replay` into a topic with `managed: false`", "no such key: it is only read")
        return
    for setting, value in REQUIRED_SETTINGS.items():
        found = topic.settings.get(setting, value)
        if found != value:
            report.add(("topic", "settings", setting), shown(found), f"{value}, which exact counts need")


def _event(event: Event, report: Report) -> Event:
    path: KeyPath = ("event", "fields")
    if not event.fields and not report.has(path):
        report.add(path, "no field", "at least the id and the time")
    fields = {name: _field(field, (*path, name), report) for name, field in event.fields.items()}
    _check_sources(event, report)
    for index, name in enumerate(event.id or ()):
        place: KeyPath = ("event", "id") if ("event", "id", index) not in report.places else ("event", "id", index)
        _check_role(event, name, _ID_TYPES, place, report)
        if name in event.id[:index]:
            report.add(place, f"{shown(name)} again", "each field once")
    if not _is_arrival(event):
        _check_role(event, event.time, _TIME_TYPES, ("event", "time"), report)
        return replace(event, fields=fields)
    return replace(event, time=names.ARRIVAL, fields={**fields, names.ARRIVAL: _ARRIVAL})


def _is_arrival(event: Event) -> bool:
    return event.time == "arrival" and "arrival" not in (event.fields or {})


def _check_sources(event: Event, report: Report) -> None:
    """Paths that can be followed together, and an id that tells the elements of a record apart."""
    kinds: dict[FieldSource, Field] = {}
    for name, field in event.fields.items():
        path: KeyPath = ("event", "fields", name, "from")
        # `p` and `$.p` are the same place, unless events are elements.
        source = field.source if event.each else replace(field.source, whole=False)
        first = kinds.setdefault(source, field)
        if None not in (first.type, field.type) and (first.type, first.format) != (field.type, field.format):
            read_as = first.type if first.format == ISO else f"{first.type}, {first.format}"
            report.add(path, f"{field.source}, from which {first.name} is read as {read_as}", "one type for a path")
        if field.source.whole and not field.source.steps and field.type and field.type.name not in ("json", "string"):
            report.add(path, "the whole record", f"the type json beside it, not {field.type}")
        if source.steps and isinstance(source.steps[0], int) and (source.whole or not event.each):
            report.add(path, f"{field.source}, a place of the record, which is an object", EXPECTED_PATH)
    each = event.each
    if each is not None and not (each.steps and isinstance(each.steps[0], str)):
        report.add(("event", "each"), shown(str(each)), EXPECTED_EACH)
    ids = [event.fields[name].source for name in event.id or () if name in event.fields]
    if each is not None and ids and all(source.whole or not source.in_value for source in ids):
        report.add(
            ("event", "id"),
            "fields of the record around the elements only",
            "a field of the element among them, or `none`: all events of a record would be one",
        )


def _check_role(event: Event, name: str, types: tuple[str, ...], path: KeyPath, report: Report) -> None:
    """`event.id` and `event.time` name declared, required fields of a fitting type."""
    if name is None or report.has(("event", "fields", name)):
        return
    if name not in event.fields:
        report.add(path, shown(name), "the name of a declared field", near_miss(name, event.fields))
        return
    field = event.fields[name]
    if field.type.name not in types:
        report.add(path, f"{shown(name)}, a {field.type}", f"a field of type {one_of(types)}")
    if not field.required:
        report.add(path, f"{shown(name)}, which may be absent", "a field with `required: true`")


def _field(field: Field, path: KeyPath, report: Report) -> Field:
    """The field with bounds and allowed values of its type."""
    if expected := names.field_fault(field.name):
        report.add_key(path, f"the field name {shown(field.name)}", expected)
    if field.name == names.ARRIVAL:
        report.add_key(path, f"the field name {shown(field.name)}", "a name other than that of the arrival")
    if field.type is None:
        return field
    kind = field.type.name
    if field.format != ISO and kind not in _TIMES:
        report.add_key((*path, "format"), f"format on a {kind}", f"a format only on {', '.join(_TIMES)}")
    for rule, types in _APPLIES.items():
        if getattr(field, rule) not in (None, ()) and kind not in types:
            report.add_key((*path, rule), f"{rule} on a {kind}", f"the rule {rule} only on {', '.join(types)}")
    low = high = None
    if kind in _BOUNDED:
        low, high = (_typed(getattr(field, rule), field.type, (*path, rule), report) for rule in ("min", "max"))
    if low is not None and high is not None and low > high:
        report.add((*path, "max"), f"{shown(field.max)} below min {shown(field.min)}", "max at or above min")
    allowed = _allowed(field, (*path, "one_of"), report) if kind in _APPLIES["one_of"] else ()
    typed = replace(field, min=low, max=high, one_of=allowed)
    return replace(typed, default=_default(typed, (*path, "default"), report))


def _default(field: Field, path: KeyPath, report: Report) -> Any:  # noqa: ANN401
    """The default as a value of the field's type, which keeps the field's own rules."""
    if field.default is None:
        return None
    if field.required:
        report.add_key(path, "a default on a required field", "only one of `required` and `default`")
    if field.type.name == "json":
        report.add_key(path, "a default on a json", "no default: null stands for a value that is absent")
        return None
    value = _typed(field.default, field.type, path, report)
    if value is None:
        return None
    broken = [
        f"at least {field.min}" if field.min is not None and value < field.min else "",
        f"at most {field.max}" if field.max is not None and value > field.max else "",
        f"one of {', '.join(map(str, field.one_of))}" if field.one_of and value not in field.one_of else "",
        f"at most {field.max_length} characters" if len(str(value)) > (field.max_length or math.inf) else "",
        f"a match of {field.pattern}" if field.pattern and not matches_whole(field.pattern, value) else "",
    ]
    for rule in filter(None, broken):
        report.add(path, shown(value), f"{rule}, as the field's own rule says")
    return value


def _allowed(field: Field, path: KeyPath, report: Report) -> tuple[Any, ...]:
    values = [_typed(value, field.type, (*path, index), report) for index, value in enumerate(field.one_of)]
    for index, value in enumerate(values):
        if value is not None and value in values[:index]:
            report.add((*path, index), f"{shown(field.one_of[index])} again", "each value once")
    return tuple(values)


def _typed(value: object, kind: FieldType, path: KeyPath, report: Report) -> Any:  # noqa: ANN401
    if value is None:
        return None
    try:
        return typed_value(value, kind)
    except ValueError as error:
        report.add(path, shown(value), str(error), QUOTES if kind.name == "string" else "")
        return None


def checked_view(view: View, columns: Columns, report: Report) -> View:
    """The view with its measures checked, and numbered together."""
    path: KeyPath = ("views", view.name)
    if expected := names.view_fault(view.name):
        report.add_key(path, f"the view name {shown(view.name)}", expected)
    by = view.by or ()
    _check_groups(by, columns, (*path, "by"), report)
    measures = _measures(view.measures, columns, by, (*path, "measures"), report)
    every = view.every or view.window
    if view.window is not None:
        _check_window(view.window, every, path, report)
    return replace(view, every=every, by=by, measures=measures)


def _check_window(window: timedelta, every: timedelta, path: KeyPath, report: Report) -> None:
    for key, duration in (("window", window), ("every", every)):
        if duration % _SECOND and (*path, key) in report.places:
            report.add((*path, key), format_duration(duration), "whole seconds")
    here = (*path, "every")
    if every > window:
        report.add(here, format_duration(every), f"at most the window, {format_duration(window)}, or gaps would open")
    elif window % every:
        report.add(here, format_duration(every), f"a whole fraction of the window, {format_duration(window)}")
    elif window // every > _MOST_WINDOWS:
        found = f"{format_duration(every)}, which puts each event into {window // every} windows"
        report.add(here, found, f"at most {_MOST_WINDOWS} windows for each event")


def _check_groups(by: tuple[str, ...], columns: Columns, path: KeyPath, report: Report) -> None:
    for index, name in enumerate(by):
        here = (*path, index)
        if columns is not None and name not in columns:
            report.add(here, shown(name), "the name of a declared field", near_miss(name, columns))
        elif columns is not None and (kind := columns[name]) and kind.name == "json":
            report.add(here, f"{shown(name)}, a json", "a field of another type: read what groups by a path of its own")
        elif name in by[:index]:
            report.add(here, f"{shown(name)} again", "each field once")
        elif expected := names.view_column_fault(name):
            report.add(here, shown(name), expected)


def _measures(
    declared: dict[str, Measure] | None, columns: Columns, by: tuple[str, ...], path: KeyPath, report: Report
) -> dict[str, Measure]:
    if declared == {} and not report.has(path):
        report.add(path, "no measure", "at least one, such as `total: count(*)`")
    alone: dict[str, Measure] = {}
    for name, measure in (declared or {}).items():
        here = (*path, name)
        expected = names.field_fault(name) or names.view_column_fault(name)
        if name in by:
            expected = "a name that no field in `by` has"
        if expected:
            report.add_key(here, f"the measure name {shown(name)}", expected)
        if checked := _noted(check_measure(measure.declared, columns, by), here, report):
            alone[name] = checked
    together = {name: check_measure(one.declared, columns, by, alone.values()) for name, one in alone.items()}
    return {name: checked.expression for name, checked in together.items() if checked.expression is not None}


def _check_replay(replay: Replay, report: Report) -> None:
    given = {key for key in ("source", "query") if getattr(replay, key)}
    given |= {key for key in ("generate", "since", "until", "rate", "speed_up") if getattr(replay, key) is not None}
    for key in {"source", "query"} - given if replay.generate is None else ():
        if not report.has(("replay", key)):
            report.add(("replay", key), "nothing", f"`{key}`, or `generate` in place of `source` and `query`")
    for key, other in _CONFLICTS:
        if {key, other} <= given:
            report.add_key(("replay", key), f"`{key}` beside `{other}`", f"only one of `{key}` and `{other}`")
    if replay.since and replay.until and replay.since >= replay.until:
        report.add(("replay", "until"), shown(replay.until), "a moment after `since`")


def _check_limits(limits: Limits, report: Report) -> None:
    if limits.max_new_events is not None and limits.min_new_events > limits.max_new_events:
        expected = f"at least min_new_events, {limits.min_new_events}"
        report.add(("limits", "max_new_events"), shown(limits.max_new_events), expected)
