"""Reland's own rules: which records are asked for, and what its commit replaces, on real tables without services."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from spark_jobs import reland_job, union
from spark_jobs.days import scratch
from spark_jobs.reland import Asked, Rejudged, Relander
from spark_jobs.reland_job import asked
from tests import lake as by_hand
from tests import small_world
from tests.conftest import write_definition
from tests.lake import LocalLake
from twofold import commits, inbox, schemas, table_state, tables
from twofold.catalog import LakeCatalog
from twofold.definition.model import Pipeline
from twofold.errors import DefinitionChanged, NotRunning, TwofoldError, UsageError
from twofold.lake import Lake
from twofold.reader.pinned import pin
from twofold.settings import Settings
from twofold.table_files import Place, Writer
from twofold.table_state import Landed

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "partition", "offsets", "expected"),
    [
        ("", None, "", Asked()),
        ("2 hours", None, "", Asked(NOON - timedelta(hours=2))),
        ("2026-03-01T11:00+01:00", 1, "", Asked(NOON - timedelta(hours=2), 1)),
        ("", 0, "5:9", Asked(None, 0, (5, 9))),
        ("", 0, "5", Asked(None, 0, (5, 6))),
        ("", 0, "5:", Asked(None, 0, (5, (1 << 63) - 1))),
        ("yesterday", None, "", "--since: 'yesterday' is neither a moment"),
        ("", None, "5:9", "--offsets wants a --partition"),
        ("", 0, "5-9", "--offsets: '5-9' is no range of offsets"),
    ],
)
def test_what_is_asked_for(since: str, partition: int | None, offsets: str, expected: Asked | str) -> None:
    if isinstance(expected, Asked):
        assert asked(since, partition, offsets, NOON) == expected
        return
    with pytest.raises(UsageError) as refused:
        asked(since, partition, offsets, NOON)
    assert expected in refused.value.message
    assert refused.value.remedy.startswith("for example")


@pytest.fixture
def lake(lake: LakeCatalog, tmp_path: Path) -> LocalLake:
    """With both logs, and two records in stream_log."""
    made = LocalLake(Settings(home=tmp_path), write_definition(tmp_path), lake)
    schemas.ensure_tables(lake, made.pipeline)
    land(made, 0)
    land(made, 1)
    return made


def written(table: Table, offset: int, outcome: str = tables.ACCEPTED) -> list[DataFile]:
    """A file with the record at an offset."""
    row = {"outcome": outcome, "kafka_partition": 0, "kafka_offset": offset, "kafka_timestamp": NOON}
    place = Place.of(table)
    with Writer(place) as writer:
        schema = pa.schema([field for field in place.arrow if field.name in row])
        writer.write(pa.RecordBatch.from_pylist([row], schema))
        return writer.close()


def land(lake: Lake, offset: int) -> None:
    """Append one record."""
    table = lake.table(tables.STREAM_LOG)
    before = table_state.landed(table_state.history_of(table), lake.name)
    state = Landed(lake.name, before.landing + 1, "t", {0: offset + 1}, relanded=before.relanded)
    commits.append(table, written(table, offset), table_state.encode(state))


def anew(lake: Lake, offset: int) -> Rejudged:
    """The record at an offset would become a rejected one."""
    pinned = pin(lake.catalog(), lake.name, tables.STREAM_LOG)
    column = pinned.made.schema().find_field("kafka_offset").field_id
    old = [file for file in pinned.all_files if file.lower_bounds[column] == offset.to_bytes(8, "little")]
    found = Rejudged(pinned, old, written(pinned.made, offset, tables.REJECTED), judged=1)
    found.changes["accepted, now rejected"] += 1
    return found


def rows(lake: Lake) -> list[tuple[int, str]]:
    found = lake.table(tables.STREAM_LOG).scan(selected_fields=("kafka_offset", "outcome")).to_arrow().to_pylist()
    return sorted((row["kafka_offset"], row["outcome"]) for row in found)


def landed(lake: Lake) -> Landed:
    return table_state.landed(lake.history(tables.STREAM_LOG), lake.name)


def test_a_commit_replaces_its_files_on_top_of_what_was_landed_meanwhile(lake: LocalLake) -> None:
    found = anew(lake, 0)
    land(lake, 2)
    before = landed(lake)
    found.commit(lake, whole=True)
    assert rows(lake) == [(0, "rejected"), (1, "accepted"), (2, "accepted")]
    after = landed(lake)
    assert (after.relanded, after.landing, after.offsets) == (before.relanded + 1, before.landing, before.offsets)
    land(lake, 3)
    assert landed(lake).relanded == 1


def test_files_that_others_replaced_are_not_replaced_again(lake: LocalLake) -> None:
    first, second = anew(lake, 0), anew(lake, 0)
    first.commit(lake, whole=False)
    now = lake.table(tables.STREAM_LOG).metadata_location
    with pytest.raises(TwofoldError, match="changed by others"):
        second.commit(lake, whole=False)
    assert lake.table(tables.STREAM_LOG).metadata_location == now
    assert not [file for file in second.new if Path(file.file_path.removeprefix("file://")).exists()]


def test_no_file_is_removed_of_a_commit_that_nobody_answers(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL went away between the commit and its word of it: the files are the table's."""
    found, commit = anew(lake, 0), lake.own.commit_table

    def unanswered(*arguments: Any) -> None:  # noqa: ANN401
        commit(*arguments)
        raise NotRunning("PostgreSQL does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(lake.own, "commit_table", unanswered)
        with pytest.raises(NotRunning):
            found.commit(lake, whole=True)
    assert rows(lake) == [(0, "rejected"), (1, "accepted")]


def test_a_run_that_fails_leaves_no_file_of_either_log(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    made = anew(lake, 0)
    (file,) = (Path(file.file_path.removeprefix("file://")) for file in made.new)

    def failing(_: Relander) -> Rejudged:
        raise OSError("no space")

    monkeypatch.setattr(Relander, "stream_log", lambda _: made)
    monkeypatch.setattr(Relander, "batch_log", failing)
    assert file.exists()
    with pytest.raises(OSError, match="no space"):
        reland_job.run(lake, Asked(), go=True)
    assert not file.exists()


def test_nothing_is_replaced_under_another_definition(lake: LocalLake, tmp_path: Path) -> None:
    found = anew(lake, 0)
    other = write_definition(tmp_path, name=lake.name, event={"max_future": "2 days"})
    schemas.ensure_tables(lake.own, other)
    with pytest.raises(DefinitionChanged):
        Rejudged(pin(lake.own, lake.name, tables.STREAM_LOG), found.old, found.new, changes=found.changes).commit(
            lake, True
        )
    # Also where it changes after it was looked at.
    with pytest.raises(DefinitionChanged):
        found.commit(lake, whole=True)
    assert rows(lake) == [(0, "accepted"), (1, "accepted")]


@pytest.mark.parametrize(("kept", "whole", "since"), [(0, True, 1), (1, True, 3), (0, False, 3)])
def test_only_where_all_was_judged_the_definition_holds_for_all(
    lake: LocalLake, tmp_path: Path, kept: int, whole: bool, since: int
) -> None:
    other: Pipeline = write_definition(tmp_path, name=lake.name, event={"max_future": "2 days"})
    schemas.ensure_tables(lake.own, other)
    found = anew(lake, 0)
    found.kept.update({"no longer in Kafka": kept} if kept else {})
    found.commit(LocalLake(lake.settings, other, lake.own), whole)
    assert table_state.defined_since(lake.table(tables.STREAM_LOG).properties) == since


def test_a_dropped_field_goes_with_what_its_column_has(lake: LocalLake, tmp_path: Path) -> None:
    """Though nothing else of its records changes: from the log, and from the `events` that are made of it."""
    noted: Pipeline = write_definition(tmp_path, event={"fields": {"note": {"type": "string"}}})
    before = LocalLake(lake.settings, noted, lake.own)
    before.ensure()
    events = [{"id": key, "at": NOON, "kind": "a", "note": note} for key, note in (("x", "secret"), ("y", None))]
    folder = before.inbox()
    assert isinstance(folder, inbox.LocalFolder)
    folder.path.mkdir(parents=True)
    (folder.path / "one.json").write_bytes(b"".join(small_world.as_json(event) + b"\n" for event in events))
    (file,) = folder.files()
    place = {"outcome": tables.ACCEPTED, "landing": 1, "file": file.name, "landed_at": NOON}
    rows = [{**event, **place, "row": number} for number, event in enumerate(events, 1)]
    by_hand.append(before.table(tables.BATCH_LOG), rows, Landed(noted.name, 1))
    by_hand.append(before.table(tables.LANDED_FILES), [{"landing": 1, "file": file.name, "version": file.version}])
    union.recreate(before)

    def notes() -> list[list[str | None]]:
        found = (before.table(name).scan().to_arrow().sort_by("id") for name in (tables.BATCH_LOG, tables.EVENTS))
        return [rows["note"].to_pylist() for rows in found]

    assert notes() == [["secret", None]] * 2
    after = LocalLake(lake.settings, write_definition(tmp_path, name=noted.name), lake.own)
    after.ensure()
    for changes in ({"accepted, other values": 1}, {}):
        with scratch(lake.settings) as duck:
            found = Relander(after, duck, Asked()).batch_log()
        assert (found.judged, found.kept, found.changes) == (2, {}, changes)
        found.commit(after, whole=True)
        assert union.read(after).is_outdated is bool(changes)
        union.recreate(after)
        assert notes() == [[None, None]] * 2
