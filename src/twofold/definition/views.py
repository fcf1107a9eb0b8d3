"""`views`: windows, groups and measures ─► `View`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from twofold.definition import names
from twofold.definition.expressions import check_measure
from twofold.definition.fault import Path, Report, near_miss, shown
from twofold.definition.model import Measure, View
from twofold.definition.raw import RawView
from twofold.definition.render import Columns
from twofold.definition.types import format_duration

_SECOND = timedelta(seconds=1)
_MOST_WINDOWS = 1000
"""Windows that one event may fall into: each is a row of state and an addition."""


def build_views(raw: Mapping[str, RawView], columns: Columns, report: Report) -> dict[str, View]:
    """Check every view; those without faults are in the result."""
    built = {name: _view(name, view, columns, ("views", name), report) for name, view in raw.items()}
    return {name: view for name, view in built.items() if view is not None}


def _view(name: str, raw: RawView, columns: Columns, path: Path, report: Report) -> View | None:
    before = len(report.faults)
    if expected := names.view_fault(name):
        report.add(path, f"the view name {shown(name)}", expected, line=report.key_line(path))
    by = _groups(raw, columns, path, report)
    measures = _measures(raw, columns, by, path, report)
    window, every = raw.window, raw.every or raw.window
    if window is None or every is None:
        return None
    _check_window(window, every, path, report)
    return View(name, window, every, by, measures) if len(report.faults) == before else None


def _check_window(window: timedelta, every: timedelta, path: Path, report: Report) -> None:
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


def _groups(raw: RawView, columns: Columns, path: Path, report: Report) -> tuple[str, ...]:
    by = raw.by or []
    for index, name in enumerate(by):
        here = (*path, "by", index)
        if columns is not None and name not in columns:
            report.add(here, shown(name), "the name of a declared field", near_miss(name, columns))
        elif name in by[:index]:
            report.add(here, f"{shown(name)} again", "each field once")
        elif expected := names.view_column_fault(name):
            report.add(here, shown(name), expected)
    return tuple(by)


def _measures(raw: RawView, columns: Columns, by: tuple[str, ...], path: Path, report: Report) -> dict[str, Measure]:
    alone: dict[str, Measure] = {}
    if raw.measures is not None and not raw.measures:
        report.add((*path, "measures"), "no measure", "at least one, such as `total: count(*)`")
    for name, text in (raw.measures or {}).items():
        here = (*path, "measures", name)
        _check_measure_name(name, by, here, report)
        checked = check_measure(text, columns, by)
        for problem in checked.problems:
            report.add(here, *problem)
        if checked.expression is not None:
            alone[name] = checked.expression
    together = {name: check_measure(one.declared, columns, by, alone.values()) for name, one in alone.items()}
    return {name: checked.expression for name, checked in together.items() if checked.expression is not None}


def _check_measure_name(name: str, by: tuple[str, ...], path: Path, report: Report) -> None:
    expected = names.field_fault(name) or names.view_column_fault(name)
    if name in by:
        expected = "a name that no field in `by` has"
    if expected:
        report.add(path, f"the measure name {shown(name)}", expected, line=report.key_line(path))
