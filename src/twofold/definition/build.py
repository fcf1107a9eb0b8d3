"""The raw models ─► `Pipeline`: every check that looks at more than one value."""

from __future__ import annotations

import duckdb
from croniter import croniter

from twofold.definition import names
from twofold.definition.expressions import Checked, E, check_filter
from twofold.definition.fault import Path, Report, near_miss, one_of, shortened, shown
from twofold.definition.fields import build_field
from twofold.definition.model import Event, Field, Limits, Pipeline, Replay, Schedule, Stream, Topic
from twofold.definition.raw import (
    RawEvent,
    RawField,
    RawLimits,
    RawPipeline,
    RawReplay,
    RawSchedule,
    RawStream,
    RawTopic,
)
from twofold.definition.render import Columns
from twofold.definition.types import FieldType
from twofold.definition.views import build_views
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
_ID_TYPES = ("string", "int", "long")
_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")


def build_pipeline(raw: RawPipeline, source_file: str, report: Report) -> Pipeline | None:
    """Check the whole definition; None if `report` has any fault in the end."""
    _check_name(raw, report)
    columns = column_types(raw.event, report)
    event = _event(raw.event, report)
    topic = _topic(raw.topic, report)
    condition = note(check_filter(raw.filter, columns), ("filter",), report) if raw.filter is not None else None
    views = build_views(raw.views or {}, columns, report)
    stream, replay, schedule = _stream(raw.stream), _replay(raw.replay, report), _schedule(raw.schedule, report)
    limits = _limits(raw.limits, report)
    if report.faults or raw.name is None or topic is None or event is None or raw.lateness is None:
        return None
    return Pipeline(
        raw.name, topic, event, raw.lateness, views, condition, stream, replay, schedule, limits, source_file
    )


def column_types(event: RawEvent | None, report: Report) -> Columns:
    """Declared fields with their types, as far as they can be told; fields at fault count as declared."""
    if event is None or event.fields is None:
        return None
    section: Path = ("event", "fields")
    declared = [path[2] for path in report.places if path[:2] == section and len(path) == len(section) + 1]
    return {str(name): _type_of(event.fields.get(str(name))) for name in declared}


def _type_of(raw: RawField | None) -> FieldType | None:
    try:
        return FieldType.parse(raw.type or "") if raw else None
    except ValueError:
        return None


def note(checked: Checked[E], path: Path, report: Report) -> E | None:
    """Hand an expression's problems to the report."""
    for problem in checked.problems:
        report.add(path, *problem)
    return checked.expression


def _check_name(raw: RawPipeline, report: Report) -> None:
    if raw.name is not None and (expected := names.pipeline_fault(raw.name)):
        report.add(("name",), shown(raw.name), expected)


def _topic(raw: RawTopic | None, report: Report) -> Topic | None:
    if raw is None or raw.name is None:
        return None
    if expected := names.topic_fault(raw.name):
        report.add(("topic", "name"), shown(raw.name), expected)
    settings = raw.settings or {}
    for setting, value in REQUIRED_SETTINGS.items():
        if settings.get(setting, value) != value:
            report.add(("topic", "settings", setting), shown(settings[setting]), f"{value}, which exact counts need")
    return Topic(raw.name, raw.partitions or 1, raw.replication or 1, settings)


def _event(raw: RawEvent | None, report: Report) -> Event | None:
    if raw is None or raw.fields is None:
        return None
    path: Path = ("event", "fields")
    if not raw.fields:
        report.add(path, "no field", "at least the id and the time")
    built = {name: build_field(name, field, (*path, name), report) for name, field in raw.fields.items()}
    _check_role(raw, "id", _ID_TYPES, report)
    _check_role(raw, "time", ("timestamp",), report)
    fields = {name: field for name, field in built.items() if isinstance(field, Field)}
    if raw.id is None or raw.time is None:
        return None
    defaults = Event(raw.id, raw.time, fields)
    return Event(
        raw.id,
        raw.time,
        fields,
        raw.max_future or defaults.max_future,
        raw.id_horizon or defaults.id_horizon,
        raw.max_bytes or defaults.max_bytes,
    )


def _check_role(raw: RawEvent, role: str, types: tuple[str, ...], report: Report) -> None:
    """`event.id` and `event.time` name a declared, required field of a fitting type."""
    name, path = getattr(raw, role), ("event", role)
    fields = raw.fields or {}
    if name is None or report.has(("event", "fields", name)):
        return
    if name not in fields:
        report.add(path, shown(name), "the name of a declared field", near_miss(name, fields))
        return
    if fields[name].type is not None and fields[name].type not in types:
        report.add(path, f"{shown(name)}, a {fields[name].type}", f"a field of type {one_of(types)}")
    if not fields[name].required:
        report.add(path, f"{shown(name)}, which may be absent", "a field with `required: true`")


def _stream(raw: RawStream | None) -> Stream:
    default = Stream()
    if raw is None:
        return default
    return Stream(
        raw.trigger or default.trigger,
        raw.max_offsets_per_trigger or default.max_offsets_per_trigger,
        raw.views_trigger or default.views_trigger,
        default.state_memory if raw.state_memory is None else raw.state_memory,
    )


def _replay(raw: RawReplay | None, report: Report) -> Replay | None:
    if raw is None:
        return None
    for key in ("source", "query") if raw.generate is None else ():
        if getattr(raw, key) is None and not report.has(("replay", key)):
            report.add(("replay", key), "nothing", f"`{key}`, or `generate` in place of `source` and `query`")
    for key, other in _CONFLICTS:
        if getattr(raw, key) is not None and getattr(raw, other) is not None:
            path = ("replay", key)
            report.add(
                path, f"`{key}` beside `{other}`", f"only one of `{key}` and `{other}`", line=report.key_line(path)
            )
    if raw.since and raw.until and raw.since >= raw.until:
        report.add(("replay", "until"), shown(raw.until), "a moment after `since`")
    if raw.query is not None and (why := query_fault(raw.query)):
        report.add(("replay", "query"), shown(raw.query), "one SELECT in DuckDB's SQL", why)
    return Replay(raw.source or "", raw.query or "", raw.generate, raw.since, raw.until, raw.rate, raw.speed_up)


def query_fault(query: str) -> str:
    """Why DuckDB's parser does not see one SELECT in a text; empty if it does. Its columns show when it runs.

    >>> query_fault("SELECT 1"), query_fault("DROP TABLE source")
    ('', 'a statement of another kind')
    """
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        return shortened(str(error), 120)
    if len(statements) != 1:
        return f"{len(statements)} statements"
    return "" if statements[0].type == duckdb.StatementType.SELECT else "a statement of another kind"


def _schedule(raw: RawSchedule | None, report: Report) -> Schedule:
    if raw is None:
        return Schedule()
    for key in ("batch", "union", "maintenance"):
        cron = getattr(raw, key)
        if cron is not None and not _is_cron(cron):
            expected = f"a cron expression of five parts, or {one_of(_PRESETS)}"
            report.add(("schedule", key), shown(cron), expected, near_miss(cron, _PRESETS))
    return Schedule(raw.batch, raw.union or Schedule.union, raw.maintenance or Schedule.maintenance)


def _limits(raw: RawLimits | None, report: Report) -> Limits:
    if raw is None:
        return Limits()
    if raw.min_new_events is not None and raw.max_new_events is not None and raw.min_new_events > raw.max_new_events:
        expected = f"at least min_new_events, {raw.min_new_events}"
        report.add(("limits", "max_new_events"), shown(raw.max_new_events), expected)
    if raw.difference is not None and raw.difference > 1:
        report.add(("limits", "difference"), shown(raw.difference), "a share, above 0 and at most 1")
    return Limits(raw.difference or Limits.difference, raw.min_new_events or 0, raw.max_new_events)


def _is_cron(text: str) -> bool:
    return text in _PRESETS or (len(text.split()) == 5 and bool(croniter.is_valid(text)))
