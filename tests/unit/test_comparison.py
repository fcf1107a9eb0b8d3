"""What a comparison counts: from where the last one ended, whatever became of its snapshot and of the rows since."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from tests import lake as tables_by_hand
from tests.conftest import write_definition
from tests.lake import LocalLake
from tests.small_world import HOUR, START, Row, event
from twofold import catalog, commits, comparison, schemas, tables
from twofold.catalog import LakeCatalog
from twofold.comparison import Comparison, ViewDifference
from twofold.definition.model import Limits
from twofold.reader import Reader
from twofold.reader.pinned import pin
from twofold.settings import Settings
from twofold.table_files import of_rows
from twofold.table_state import Boundary, Landed, encode

NEW = ("edge", "replaced")
"""What version 0.2.0 did not keep."""


class Unions:
    """A pipeline without files: each step lands its records, unites them and compares."""

    def __init__(self, lake: LocalLake) -> None:
        self.lake, self.rows, self.landing = lake, 0, 0
        self.latest, self.relanded = 0, (0, 0)
        self.kept: Comparison | None = None

    def unite(self, *minutes: int) -> None:
        """Of these minutes of event time, all of which arrive a day later."""
        self.landing, self.latest = self.landing + 1, max(self.latest, *minutes)
        first, self.rows = self.rows, self.rows + len(minutes)
        rows = [
            {**event(f"s{offset}", minute), **self.place(offset), "outcome": tables.ACCEPTED}
            for offset, minute in enumerate(minutes, first)
        ]
        landed = Landed(self.lake.name, self.landing, "t", {0: self.rows}, relanded=self.relanded[0])
        tables_by_hand.append(self.lake.table(tables.STREAM_LOG), rows, landed)
        tables_by_hand.append(self.lake.table(tables.EVENTS), rows, self.edge())

    def place(self, offset: int) -> Row:
        moment = START + 24 * HOUR + timedelta(seconds=offset)
        return {"kafka_partition": 0, "kafka_offset": offset, "kafka_timestamp": moment, "landing": self.landing}

    def edge(self) -> Boundary:
        seen = START + timedelta(minutes=self.latest)
        return Boundary(self.lake.name, "t", {0: self.rows}, max_event_time=seen, seen=seen, relanded=self.relanded)

    def judge_again(self, taken: int) -> None:
        """So many rows are taken away, in a commit that says that rows of a log were replaced."""
        self.relanded = (self.relanded[0] + 1, 0)
        events = self.lake.table(tables.EVENTS)
        left = of_rows(events, events.scan().to_arrow().to_pylist()[taken:])
        files = pin(self.lake.own, self.lake.name, tables.EVENTS).all_files
        commits.replace(events, events.metadata.current_snapshot_id, files, left, encode(self.edge()))

    def expire(self) -> None:
        """All snapshots of `events` but the last, as `erase` does."""
        events = self.lake.table(tables.EVENTS)
        commits.tidy(events, [one.snapshot_id for one in events.metadata.snapshots[:-1]])

    def compare(self, without: tuple[str, ...] = ()) -> Comparison:
        """As against the last one, which was kept as JSON: by an earlier version `without` some fields."""
        if self.kept:
            body = json.loads(json.dumps(asdict(self.kept)))
            assert comparison.from_json(body) == self.kept
            self.kept = comparison.from_json({name: value for name, value in body.items() if name not in without})
        with Reader(self.lake.settings, {self.lake.name: self.lake.pipeline}) as reader:
            history = reader.pinned(self.lake.pipeline, tables.EVENTS).history
            self.kept = comparison._compared(reader, self.lake.pipeline, history, self.kept)
        return self.kept


@pytest.fixture
def unions(lake: LakeCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unions]:
    """With five events united and compared: in the second of three landings one is late by hours."""
    monkeypatch.setattr(catalog, "load", lambda _: lake)
    made = LocalLake(Settings(home=tmp_path), write_definition(tmp_path, lateness="10 minutes"), lake)
    schemas.ensure_tables(lake, made.pipeline)
    found = Unions(made)
    found.unite(200, 300)
    found.unite(10, 310)
    found.unite(320)
    first = found.compare()
    assert (first.events_before, first.events_after, first.healed_late, first.replaced) == (0, 5, 1, False)
    yield found


@pytest.mark.parametrize("without", [(), NEW], ids=["", "kept by 0.2.0"])
def test_it_counts_from_the_last_one(unions: Unions, without: tuple[str, ...]) -> None:
    unions.unite(400)
    found = unions.compare(without)
    assert (found.events_before, found.events_after, found.healed_late, found.replaced) == (5, 6, 0, False)


def test_it_counts_from_the_last_one_also_where_its_snapshot_expired(unions: Unions) -> None:
    unions.unite(400)
    unions.expire()
    found = unions.compare()
    assert (found.events_before, found.events_after, found.healed_late, found.days) == (5, 6, 0, None)
    assert comparison.beyond(found, Limits(max_new_events=1)) == []


def test_of_one_that_version_0_2_0_kept_the_rows_are_known_though_its_snapshot_expired(unions: Unions) -> None:
    unions.unite(400)
    unions.expire()
    found = unions.compare(NEW)
    assert (found.events_before, found.events_after) == (5, 6)


@pytest.mark.parametrize("expires", [False, True], ids=["reland", "erase"])
def test_rows_taken_away_as_asked_pass_no_limit(unions: Unions, expires: bool) -> None:
    unions.judge_again(taken=2)
    if expires:
        unions.expire()
    found, limits = unions.compare(), Limits(min_new_events=1, max_new_events=1)
    assert (found.events_before, found.events_after, found.replaced) == (5, 3, True)
    assert comparison.beyond(found, limits) == []
    assert found.change.startswith("events went from 5 rows to 3")
    # What comes after is judged again.
    unions.unite(400, 500)
    assert comparison.beyond(unions.compare(), limits) == ["2 new events, more than limits.max_new_events: 1"]


def test_of_a_view_that_was_removed_nothing_differs(tmp_path: Path) -> None:
    pipeline, apart = write_definition(tmp_path), ViewDifference(compared=4, different=4, mean=0.4)
    empty = Comparison(pipeline.name, "2", 1, events_before=8, events_after=8, healed_late=0, views={})
    kept, found = (replace(empty, views=dict.fromkeys(names, apart)) for names in (["by_kind", "old"], ["by_kind"]))
    sound = {"by_kind": apart, "old": ViewDifference()}
    assert comparison.told(pipeline, kept, found) == sound
    # With no union in between the kept one is the answer, too.
    assert comparison.told(pipeline, kept, kept) == sound
    assert comparison.told(pipeline, None, found) == {"by_kind": apart}


def test_a_window_that_begins_before_the_year_1_is_described(tmp_path: Path) -> None:
    """Of an event of that year, where the field declares such a `min`: Python has no such moment, and said so."""
    pipeline = write_definition(tmp_path)
    (view,) = pipeline.views.values()
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    year_1 = "-62135596800000000"
    for name, events in (("b", 4), ("s", 3)):
        connection.execute(
            f"""CREATE TABLE {name} AS SELECT make_timestamptz({year_1} - 900000000) AS window_start,
                make_timestamptz({year_1} + 2700000000) AS window_end, 'a' AS kind, {events} AS events, 1 AS total,
                1.0::DOUBLE AS mean"""
        )
    reader: Any = SimpleNamespace(query=lambda sql, _: connection.sql(sql))
    rows = comparison.side_by_side(view, "b", "s", "true", frozenset(view.measures))
    found = comparison._summed(reader, pipeline, view, rows)
    assert (found.compared, found.different) == (1, 1)
    assert found.worst[0].startswith("by_kind [") and found.worst[0].endswith(" kind=a: events 4 batch, 3 speed")
