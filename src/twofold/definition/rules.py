"""What a definition must keep beyond the single value: fields and their rules, windows, roles, expressions.

Takes what `keys` read, where None stands for what is at fault already, and gives the whole pipeline, its bounds of
their fields' types and its expressions checked.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from twofold.definition import names
from twofold.definition.expressions import CheckedExpression, E, check_filter, check_measure
from twofold.definition.fault import KeyPath, Report, near_miss, one_of, shown
from twofold.definition.keys import QUOTES
from twofold.definition.model import Event, Field, Limits, Measure, Pipeline, Replay, Topic, View
from twofold.definition.renderer import Columns
from twofold.definition.types import FieldType, format_duration, typed_value
from twofold.topic import REQUIRED_SETTINGS

_CONFLICTS = (
    ("source", "generate"),
    ("query", "generate"),
    ("since", "generate"),
    ("until", "generate"),
    ("speed_up", "generate"),
    ("speed_up", "rate"),
)
"""Keys of `replay` of which one at most makes sense."""
_ROLES = {"id": ("string", "int", "long"), "time": ("timestamp",)}
_BOUNDED = ("int", "long", "double", "decimal", "timestamp", "date")
_APPLIES = {
    "min": _BOUNDED,
    "max": _BOUNDED,
    "one_of": ("string", "int", "long", "decimal", "date"),
    "pattern": ("string",),
    "max_length": ("string",),
}
"""The types for which each rule of a field makes sense."""
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
    if condition is not None:
        condition = _noted(check_filter(condition.declared, columns), ("filter",), report)
    views = {name: checked_view(view, columns, report) for name, view in declared.views.items()}
    if declared.replay is not None:
        _check_replay(declared.replay, report)
    _check_limits(declared.limits, report)
    return None if report.faults else replace(declared, event=event, filter=condition, views=views)


def _noted(checked: CheckedExpression[E], path: KeyPath, report: Report) -> E | None:
    for problem in checked.problems:
        report.add(path, *problem)
    return checked.expression


def _columns(event: Event, report: Report) -> dict[str, FieldType | None]:
    """Declared fields with their types, as far as they are known; fields at fault count as declared."""
    declared = [path[2] for path in report.places if path[:2] == ("event", "fields") and len(path) == 3]
    return {str(name): event.fields[name].type if name in event.fields else None for name in declared}


def _check_topic(topic: Topic, report: Report) -> None:
    for setting, value in REQUIRED_SETTINGS.items():
        found = topic.settings.get(setting, value)
        if found != value:
            report.add(("topic", "settings", setting), shown(found), f"{value}, which exact counts need")


def _event(event: Event, report: Report) -> Event:
    path: KeyPath = ("event", "fields")
    if not event.fields and not report.has(path):
        report.add(path, "no field", "at least the id and the time")
    fields = {name: _field(field, (*path, name), report) for name, field in event.fields.items()}
    for role, types in _ROLES.items():
        _check_role(event, role, types, report)
    return replace(event, fields=fields)


def _check_role(event: Event, role: str, types: tuple[str, ...], report: Report) -> None:
    """`event.id` and `event.time` name a declared, required field of a fitting type."""
    name, path = getattr(event, role), ("event", role)
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
    if field.type is None:
        return field
    kind = field.type.name
    for rule, types in _APPLIES.items():
        if getattr(field, rule) not in (None, ()) and kind not in types:
            report.add_key((*path, rule), f"{rule} on a {kind}", f"the rule {rule} only on {', '.join(types)}")
    low = high = None
    if kind in _BOUNDED:
        low, high = (_typed(getattr(field, rule), field.type, (*path, rule), report) for rule in ("min", "max"))
    if low is not None and high is not None and low > high:
        report.add((*path, "max"), f"{shown(field.max)} below min {shown(field.min)}", "max at or above min")
    allowed = _allowed(field, (*path, "one_of"), report) if kind in _APPLIES["one_of"] else ()
    return replace(field, min=low, max=high, one_of=allowed)


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
