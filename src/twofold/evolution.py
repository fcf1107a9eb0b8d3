"""What a changed definition means for the tables that are there. Nothing is read or written here.

definition of today ──────────────────────┐
columns, properties of a table as it is ──┴─► Difference │ follows by itself
                                                         │ waits: rows landed before stay as they are, until reland
                                                         │ refused: the tables cannot follow; with the remedy
                                                         │ ignored: it was for a beginning, which is over
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyiceberg.types import DecimalType, IcebergType, IntegerType, LongType

from twofold import table_state
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, Topic
from twofold.table_state import Landed

FOLLOWS = "follows"
"""The next job that starts brings the tables to it."""
WAITS = "waits"
"""It holds for what is landed from now on; rows landed before keep their values and their outcome until `reland`."""
REFUSED = "refused"
"""No job starts with it, and nothing is written."""
IGNORED = "ignored"
"""It was for a beginning, which is over."""

Types = Mapping[str, IcebergType]
"""Type of a column by its name."""

EVENT = "twofold.event"
"""Property of the logs: the fingerprint of the definition under which they are written."""
DECLARED = "twofold.declared"
"""Property of `events`: the facts of the definition under which it was last written, as JSON."""
TOPIC = "twofold.topic"
"""Property of `stream_log`: the name of the topic that it was last opened for."""
_ID, _TIME, EACH, _MANAGED = "twofold.id", "twofold.time", "twofold.each", "twofold.managed"
_KEYS = {_ID: "event.id", _TIME: "event.time", EACH: "event.each", _MANAGED: "topic.managed"}
"""Property of a table → key of the definition that it was made by, and that cannot change."""
_FIELDS = "event.fields."
_NEW_NAME = "declare the changed stream under a new pipeline name; the old tables stay readable"


@dataclass(frozen=True)
class Difference:
    """One difference of a definition from the tables."""

    effect: str
    """FOLLOWS, WAITS, REFUSED or IGNORED."""
    where: str
    """The key of the definition."""
    what: str
    then: str
    """What becomes of it; of what is refused, the remedy."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.then}"


def identity(pipeline: Pipeline) -> dict[str, str]:
    """What tells the rows of a pipeline's tables apart, as their properties: it cannot change."""
    event = pipeline.event
    return {
        _ID: ",".join(event.id) or "none",
        _TIME: event.time,
        EACH: "" if event.each is None else str(event.each),
        _MANAGED: str(pipeline.topic.managed).lower(),
    }


def declared(pipeline: Pipeline) -> str:
    """The value of DECLARED."""
    return json.dumps(fingerprint.event_facts(pipeline), sort_keys=True)


def is_wider(before: IcebergType, after: IcebergType) -> bool:
    """Whether a column can become of another type, all of whose old values it holds, with its files as they are.

    >>> is_wider(IntegerType(), LongType()), is_wider(DecimalType(9, 2), DecimalType(12, 2))
    (True, True)
    >>> is_wider(LongType(), IntegerType()), is_wider(DecimalType(9, 2), DecimalType(12, 3))
    (False, False)
    """
    if isinstance(before, DecimalType) and isinstance(after, DecimalType):
        return before.scale == after.scale and before.precision < after.precision
    return isinstance(before, IntegerType) and isinstance(after, LongType)


def of_identity(pipeline: Pipeline, properties: Mapping[str, str]) -> Iterator[Difference]:
    """What cannot change, by the properties of a table."""
    for key, now in identity(pipeline).items():
        if (was := properties[key]) != now:
            yield Difference(REFUSED, _KEYS[key], f"was {was!r}, is now {now!r}", f"undo it, or {_NEW_NAME}")


def of_topic(topic: Topic, known: Landed, properties: Mapping[str, str]) -> Iterator[Difference]:
    """Another topic than the one that the stream has records of: its offsets would say something else.

    >>> [str(one) for one in of_topic(Topic("u"), Landed("p", 3, offsets={0: 9}), {TOPIC: "t"})]
    ["topic.name: was 't', is now 'u'; undo it, or declare the changed stream under a new pipeline name; \
the old tables stay readable"]
    >>> [*of_topic(Topic("u"), Landed("p"), {TOPIC: "t"})]
    []
    """
    was = properties.get(TOPIC, topic.name)  # version 0.2.0 did not keep it
    if known.offsets and was != topic.name:
        yield Difference(REFUSED, "topic.name", f"was {was!r}, is now {topic.name!r}", f"undo it, or {_NEW_NAME}")


def of_start(topic: Topic, known: Landed) -> Iterator[Difference]:
    """Another `topic.start` than the one that the stream began with.

    >>> [str(one) for one in of_start(Topic("t", start="latest"), Landed("p", 3, offsets={0: 9}))]
    ['topic.start: latest has no effect: the stream began with earliest; a new pipeline name starts afresh']
    >>> [*of_start(Topic("t", start="latest"), Landed("p"))]
    []
    """
    declared = table_state.start_text(topic)
    if known.offsets and declared != known.declared_start:
        what = f"{declared} has no effect: the stream began with {known.declared_start}"
        yield Difference(IGNORED, "topic.start", what, "a new pipeline name starts afresh")


def of_columns(pipeline: Pipeline, wanted: Types, columns: Types) -> Iterator[Difference]:
    """The fields against the columns of an existing table; `wanted` are the columns that it would be made with."""
    until = f"until `twofold reland {pipeline.name}`"
    for name, field in pipeline.event.fields.items():
        where, now = f"{_FIELDS}{name}", wanted[name]
        if name not in columns:
            if field.required:
                what = "a new field must be optional (records without it exist)"
                then = f"take `required` away; after `twofold reland {pipeline.name}` it can be required"
                yield Difference(REFUSED, where, what, then)
            else:
                then = f"null in rows landed before, which keep their outcome, {until}"
                yield Difference(FOLLOWS, where, "is new", then)
        elif is_wider(columns[name], now):
            what, then = f"was {columns[name]}, is now {now}", "what was rejected, or filtered, as too large stays so"
            yield Difference(FOLLOWS, f"{where}.type", what, "all values are kept")
            yield Difference(WAITS, f"{where}.type", what, f"{then}, {until}")
        elif columns[name] != now:
            way_out = f"undo it, or declare a field of another name with `from: {field.source}`"
            yield Difference(REFUSED, f"{where}.type", f"was {columns[name]}, is now {field.type}", way_out)
    then = "its column stays in the tables, and is not written any more"
    yield from (Difference(FOLLOWS, f"{_FIELDS}{one}", "is not declared", then) for one in columns if one not in wanted)


def of_rules(
    pipeline: Pipeline, properties: Mapping[str, str], columns: Types, logs: Mapping[str, Mapping[str, str]]
) -> Iterator[Difference]:
    """All else that decides outcomes and values, against the definition that DECLARED in `properties` holds.

    `properties` and `columns` are those of `events`, `logs` the properties of both logs, by name.
    """
    until = f"until `twofold reland {pipeline.name}`"
    if {log[EVENT] for log in logs.values()} == {fingerprint.event(pipeline)}:
        for name, log in logs.items():
            if (since := table_state.defined_since(log)) > 1:
                what = f"{name} has rows of an earlier definition, landed before landing {since}"
                yield Difference(WAITS, "event", what, f"they stay as they are, {until}")
        return
    then = f"rows landed before keep their values and outcome, {until}"
    before, after = json.loads(properties[DECLARED]), json.loads(declared(pipeline))
    for key in sorted((before.keys() | after.keys()) - set(_KEYS.values())):
        was, now, name = before.get(key), after.get(key), key.removeprefix(_FIELDS)
        if was is None and name != key:
            # It is new, or was dropped, and its column is there.
            if name in columns:
                yield Difference(WAITS, key, "is declared again", f"rows landed before keep its former values, {until}")
        elif now is None and name != key:
            yield Difference(WAITS, key, "is not declared", then)
        elif was != now:
            rules = _changed(was, now) if isinstance(was, dict) and isinstance(now, dict) else [("", was, now)]
            effect, rest = (FOLLOWS, "the next union goes by it") if key == "event.id_horizon" else (WAITS, then)
            yield from (Difference(effect, f"{key}{rule}", _said(old, new), rest) for rule, old, new in rules)


def of_view(
    name: str, pipeline: Pipeline, columns: Types | None, wanted: Types, outdated: bool
) -> Iterator[Difference]:
    """A view's table `name`; no `columns`: there is none yet."""
    where = f"views.{name.split('_', 1)[1]}"
    if columns is None:
        yield Difference(FOLLOWS, where, f"{name} is not there yet", "it is filled from all that was landed")
    elif outdated:
        what = f"window, groups, measures or lateness are not those that {name} was computed by"
        yield Difference(REFUSED, where, what, f"`twofold rebuild {pipeline.name}`, or declare it as a new view")
    else:
        for column, kind in wanted.items():
            if column in columns and is_wider(columns[column], kind):
                what = f"{column} of {name} was {columns[column]}, is now {kind}"
                yield Difference(FOLLOWS, where, what, "all values are kept")


def _changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterable[tuple[str, Any, Any]]:
    """The rules of one field that differ; types are the columns' affair, but for texts of two kinds."""
    for rule in sorted(was.keys() | now.keys()):
        old, new = was.get(rule), now.get(rule)
        if old != new and (rule != "type" or {old, new} == {"string", "json"}):
            yield f".{rule}", old, new


def _said(old: object, new: object) -> str:
    """What a rule was and is.

    >>> _said(None, 5), _said([1], None)
    ('is now 5', 'was [1], is no more')
    """
    texts = [json.dumps(value, ensure_ascii=False) for value in (old, new)]
    before = "" if old is None else f"was {texts[0]}, "
    return before + ("is no more" if new is None else f"is now {texts[1]}")
