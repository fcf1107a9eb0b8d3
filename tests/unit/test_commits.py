"""Commits by comparison on real Iceberg tables (catalog in SQLite, files in a folder): what holds, what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from spark_jobs.tasks import packed
from tests.conftest import write_definition
from twofold import catalog, commits, schemas, table_state, tables
from twofold.catalog import LakeCatalog
from twofold.commits import AssertProperty
from twofold.definition.model import Pipeline
from twofold.errors import ClockBehind, IncompatibleDefinition
from twofold.inbox import is_table_file
from twofold.ledger import Erased
from twofold.reader.pinned import Pinned, day_of
from twofold.table_files import Place, Writer
from twofold.table_state import Boundary, Landed

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOON_DAY = (NOON.date() - date(1970, 1, 1)).days


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return write_definition(tmp_path)


@pytest.fixture
def log(lake: LakeCatalog, pipeline: Pipeline) -> Table:
    """An empty stream_log."""
    return schemas.ensure_tables(lake, pipeline)[tables.STREAM_LOG]


def rows(*offsets: int, at: datetime = NOON) -> pa.RecordBatch:
    """Records of partition 0 with these offsets."""
    count = len(offsets)
    return pa.RecordBatch.from_pydict({
        "id": [f"id-{offset}" for offset in offsets],
        "outcome": ["accepted"] * count,
        "kafka_partition": pa.array([0] * count, pa.int32()),
        "kafka_offset": pa.array(offsets, pa.int64()),
        "kafka_timestamp": pa.array([at] * count, pa.timestamp("us", "UTC")),
        "landing": pa.array([1] * count, pa.int64()),
    })  # fmt: skip


def land(table: Table, pipeline: Pipeline, first: int, count: int = 2) -> Table:
    """Append some offsets, and say so in the same commit."""
    writer = Writer(Place.of(table))
    writer.write(rows(*range(first, first + count)))
    state = Landed(pipeline.name, first // count + 1, offsets={0: first + count})
    return commits.append(table, writer.close(), table_state.encode(state))


def offsets(table: Table) -> list[int]:
    return sorted(table.scan().to_arrow()["kafka_offset"].to_pylist())


def paths(table: Table, suffix: str) -> set[Path]:
    root = Path(table.location().removeprefix("file://"))
    return {path for path in root.rglob(f"*{suffix}") if path.is_file()}


def test_the_second_of_two_appends_on_one_snapshot_is_refused_and_leaves_nothing(
    lake: LakeCatalog, log: Table, pipeline: Pipeline
) -> None:
    first = land(log, pipeline, 0)
    other = lake.load_table(log.name())
    land(first, pipeline, 2)
    before = paths(log, ".avro") | paths(log, ".json")

    with pytest.raises(CommitFailedException):
        land(other, pipeline, 2)

    found = lake.load_table(log.name())
    assert offsets(found) == [0, 1, 2, 3]
    assert paths(log, ".avro") | paths(log, ".json") == before
    # Read again, it is decided again: what is held already is not landed.
    assert table_state.landed(table_state.history_of(found), pipeline.name).offsets == {0: 4}


def test_the_very_first_append_is_compared_too(lake: LakeCatalog, log: Table, pipeline: Pipeline) -> None:
    land(log, pipeline, 0)
    with pytest.raises(CommitFailedException):
        land(log, pipeline, 0)
    assert offsets(lake.load_table(log.name())) == [0, 1]


def test_a_commit_under_another_definition_is_refused(lake: LakeCatalog, log: Table, pipeline: Pipeline) -> None:
    unchanged = schemas.same_definition(log)
    with log.transaction() as transaction:
        transaction.set_properties({schemas.EVENT: "another"})
    writer = Writer(Place.of(log))
    writer.write(rows(0))
    with pytest.raises(CommitFailedException):
        commits.append(log, writer.close(), {}, [unchanged])
    found = lake.load_table(log.name())
    assert found.current_snapshot() is None
    commits.append(found, (), {}, [AssertProperty(key=schemas.EVENT, value="another")])


def test_rows_of_several_days_become_a_file_each(log: Table) -> None:
    writer = Writer(Place.of(log))
    writer.write(rows(0, 1, at=NOON))
    writer.write(pa.Table.from_batches([rows(2, at=NOON), rows(3, at=NOON + timedelta(days=1))]).to_batches()[0])
    writer.write(rows(4, at=NOON + timedelta(days=1)))
    files = writer.close()
    table = commits.append(log, files, {})
    assert sorted(file.record_count for file in files) == [1, 3]
    assert offsets(table) == [0, 1, 2, 4]
    days = {str(file.partition[0]) for file in files}
    assert days == {str((NOON.date() - date(1970, 1, 1)).days + more) for more in (0, 1)}
    root = f"{table.location()}/"
    assert all(is_table_file(file.file_path.removeprefix(root)) for file in files)


def test_what_tasks_are_sent_stays_the_same_from_commit_to_commit(log: Table, pipeline: Pipeline) -> None:
    """Its bytes are the key under which a worker keeps decoder, filter and store between its tasks."""
    sent, table = set(), log
    for number in range(4):
        sent.add(packed(pipeline, Place.of(table), Erased()))
        table = land(table, pipeline, 2 * number)
    assert len(sent) == 1


def test_a_file_that_is_given_up_is_gone(log: Table) -> None:
    writer = Writer(Place.of(log))
    writer.write(rows(0))
    assert paths(log, ".parquet")
    writer.abort()
    assert not paths(log, ".parquet") and writer.close() == []


def test_manifests_stay_few_and_every_row_there(
    lake: LakeCatalog, log: Table, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "MERGED_AT_ONCE", 3)
    table = log
    for number in range(20):
        table = land(table, pipeline, 2 * number)
        if number % 3 == 2:
            table = commits.tidy(table)
    found = lake.load_table(log.name())
    snapshot = found.current_snapshot()
    assert snapshot is not None and snapshot.summary is not None
    assert len(snapshot.manifests(found.io)) <= 6
    assert offsets(found) == list(range(40))
    assert snapshot.summary["total-records"] == "40" and snapshot.summary["total-data-files"] == "20"
    # A commit that moves no rows carries no state: what is in force is the nearest ancestor's.
    assert table_state.landed(table_state.history_of(found), pipeline.name).offsets == {0: 40}
    # Each file keeps the number of the commit that added it, by which readers find what is new.
    entries = [entry for one in snapshot.manifests(found.io) for entry in one.fetch_manifest_entry(found.io)]
    assert len({entry.sequence_number for entry in entries}) == 20


def test_expired_snapshots_go_with_what_only_they_named(
    lake: LakeCatalog, log: Table, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "MERGED_AT_ONCE", 4)
    table = log
    for number in range(4):
        table = land(table, pipeline, 2 * number)
    table = commits.tidy(table)
    table = land(table, pipeline, 8)
    ids = [snapshot.snapshot_id for snapshot in table.metadata.snapshots]
    table = commits.tidy(table, ids[:-1])
    found = lake.load_table(log.name())
    assert [snapshot.snapshot_id for snapshot in found.metadata.snapshots] == ids[-1:]
    assert offsets(found) == list(range(10))
    snapshot = found.current_snapshot()
    assert snapshot is not None
    named = {snapshot.manifest_list, *(manifest.manifest_path for manifest in snapshot.manifests(found.io))}
    assert {f"file://{path}" for path in paths(log, ".avro")} == named
    # Nothing to do is no commit.
    assert commits.tidy(found).metadata_location == found.metadata_location


def test_the_list_of_snapshots_is_written_compressed(log: Table, pipeline: Pipeline) -> None:
    table = log
    for number in range(30):
        table = land(table, pipeline, 2 * number)
    newest = Path(table.metadata_location.removeprefix("file://"))
    assert newest.name.endswith(".gz.metadata.json")
    assert newest.stat().st_size < len(table.metadata.model_dump_json()) / 3


@pytest.mark.parametrize(
    ("behind", "told_ms"),
    [
        (timedelta(), 0),
        (timedelta(seconds=59), 0),
        (timedelta(hours=1), 3_600_000),
    ],
)
def test_a_clock_set_back_is_told_and_stops_nothing(
    log: Table, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, behind: timedelta, told_ms: int
) -> None:
    table = land(log, pipeline, 0)
    now = table.metadata.last_updated_ms / 1000 - behind.total_seconds()
    monkeypatch.setattr(time, "time", lambda: now)
    assert commits.clock_behind_ms(table.metadata) == told_ms
    for number in range(1, 4):
        table = land(table, pipeline, 2 * number)
    times = [entry.timestamp_ms for entry in table.metadata.snapshot_log]
    assert times == sorted(times) and times[-1] >= times[0]
    assert offsets(table) == list(range(8))


def test_nothing_but_rows_is_committed_behind_the_last_commit(
    tmp_path: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = catalog.LakeCatalog("test", uri=f"sqlite:///{tmp_path}/own.db", warehouse=f"file://{tmp_path}/own")
    table = land(schemas.ensure_tables(lake, pipeline)[tables.STREAM_LOG], pipeline, 0)
    now = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: now)
    with pytest.raises(ClockBehind, match="stream_log"), table.transaction() as transaction:
        transaction.set_properties(x="y")
    assert offsets(land(table, pipeline, 2)) == [0, 1, 2, 3]
    assert "3600 s behind" in commits.clock_warning(table)
    lake.engine.dispose()


def files_of(table: Table) -> tuple[DataFile, ...]:
    return Pinned("", (), table).all_files


def head(table: Table) -> int | None:
    return table.metadata.current_snapshot_id


def replaced(table: Table, day: int, *offsets: int) -> Table:
    """Put other rows in place of those of one day after NOON's."""
    old = [file for file in files_of(table) if file.partition[0] == NOON_DAY + day]
    writer = Writer(Place.of(table))
    writer.write(rows(*offsets, at=NOON + timedelta(days=day)))
    return commits.replace(table, head(table), old, writer.close(), {"told": str(day)})


def test_files_are_replaced_by_comparison(lake: LakeCatalog, log: Table) -> None:
    table = log
    for day in range(3):
        table = replaced(table, day, 2 * day, 2 * day + 1)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    untouched = {manifest.manifest_path for manifest in snapshot.manifests(table.io)}
    table = replaced(table, 1, 100)
    found = lake.load_table(log.name())
    assert offsets(found) == [0, 1, 4, 5, 100]
    snapshot = found.current_snapshot()
    assert snapshot is not None and snapshot.summary is not None
    assert snapshot.summary.operation == Operation.OVERWRITE
    told = {key: snapshot.summary[key] for key in ("total-records", "total-data-files", "deleted-records", "told")}
    assert told == {"total-records": "5", "total-data-files": "3", "deleted-records": "2", "told": "1"}
    sizes = sum(file.file_size_in_bytes for file in files_of(found))
    assert snapshot.summary["total-files-size"] == str(sizes)
    # Only what named the day's file was rewritten, and says what went.
    manifests = {manifest.manifest_path: manifest for manifest in snapshot.manifests(found.io)}
    assert len(untouched & manifests.keys()) == 2
    entries = [entry for one in manifests.values() for entry in one.fetch_manifest_entry(found.io, False)]
    gone = [entry for entry in entries if entry.status == ManifestEntryStatus.DELETED]
    assert [entry.snapshot_id for entry in gone] == [snapshot.snapshot_id]
    # The next commit does not carry on what is only about the past.
    after = replaced(found, 5, 7).current_snapshot()
    assert after is not None
    assert all(one.has_added_files() or one.has_existing_files() for one in after.manifests(found.io))


def test_the_files_of_a_day_are_found_without_the_manifests_of_others(log: Table) -> None:
    table = log
    for day in range(3):
        table = replaced(table, day, day)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    wanted = NOON.date() + timedelta(days=1)
    for manifest in snapshot.manifests(table.io):
        if not commits.may_hold(manifest, [wanted]):
            table.io.delete(manifest.manifest_path)
    assert [day_of(file) for file in Pinned("", (), table).on_days({wanted})] == [wanted]
    assert Pinned("", (), table).on_days(set()) == ()
    with pytest.raises(FileNotFoundError):
        files_of(table)


def test_a_replacement_on_an_older_head_is_refused_and_leaves_nothing(lake: LakeCatalog, log: Table) -> None:
    table = replaced(replaced(log, 0, 0), 1, 1)
    other = lake.load_table(log.name())
    replaced(table, 0, 10)
    before = paths(log, ".avro") | paths(log, ".json")
    with pytest.raises(CommitFailedException):
        replaced(other, 1, 20)
    assert paths(log, ".avro") | paths(log, ".json") == before
    assert offsets(lake.load_table(log.name())) == [1, 10]


def expired(table: Table) -> list[int]:
    """All snapshots of a table but its newest."""
    return [one.snapshot_id for one in table.metadata.snapshots[:-1]]


@pytest.mark.parametrize(
    "late",
    [
        lambda table, old: commits.append(table, old, {}),
        lambda table, old: commits.replace(table, head(table), old[:1], old[1:], {}),
        lambda table, _: commits.tidy(table, expired(table)),
    ],
    ids=["append", "replace", "tidy"],
)
def test_a_commit_on_what_others_have_expired_meanwhile_is_refused_and_leaves_nothing(
    lake: LakeCatalog, log: Table, late: Callable[[Table, Sequence[DataFile]], Table]
) -> None:
    """Whoever holds a table while an id is erased beside it: its files are gone before the commit is compared."""
    table = replaced(replaced(log, 0, 0), 1, 1)
    held, old = lake.load_table(log.name()), files_of(table)
    table = replaced(table, 0, 10)
    commits.tidy(table, expired(table))
    before = paths(log, ".avro") | paths(log, ".json")
    with pytest.raises(CommitFailedException):
        late(held, old)
    assert paths(log, ".avro") | paths(log, ".json") == before


def test_a_snapshot_is_expired_once(lake: LakeCatalog, log: Table) -> None:
    """Java's files go after the catalog's word, so to look for them shows nothing."""
    table = replaced(replaced(log, 0, 0), 1, 1)
    held = lake.load_table(log.name())
    table.maintenance.expire_snapshots().by_ids(expired(table)).commit()
    with pytest.raises(CommitFailedException):
        commits.tidy(held, expired(held))
    with pytest.raises(ValueError, match="does not exist"):
        commits.tidy(lake.load_table(log.name()), expired(held))


def test_a_file_of_metadata_that_is_lost_is_no_commit_of_others(lake: LakeCatalog, log: Table) -> None:
    table = replaced(log, 0, 0)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    table.io.delete(snapshot.manifest_list)
    with pytest.raises(FileNotFoundError):
        commits.append(table, [], {})


def test_a_file_that_is_not_there_is_not_replaced(log: Table) -> None:
    table = replaced(log, 0, 0)
    (old,) = files_of(table)
    table = replaced(table, 0, 1)
    with pytest.raises(CommitFailedException, match="has no file"):
        commits.replace(table, head(table), [old], [], {})
    assert offsets(table) == [1]


def test_what_is_forgotten_is_named_by_no_manifest(lake: LakeCatalog, log: Table) -> None:
    table = replaced(replaced(replaced(log, 0, 0, 1), 1, 5), 0, 2)
    snapshot = table.current_snapshot()
    assert snapshot is not None and any(one.deleted_files_count for one in snapshot.manifests(table.io))
    commits.tidy(table, forget=True)
    found = lake.load_table(log.name())
    snapshot = found.current_snapshot()
    assert snapshot is not None and snapshot.summary is not None
    assert snapshot.summary.operation == Operation.REPLACE and offsets(found) == [2, 5]
    assert not any(one.deleted_files_count for one in snapshot.manifests(found.io))
    assert commits.tidy(found, forget=True) is found


def test_many_replacements_leave_few_manifests(lake: LakeCatalog, log: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "MERGED_AT_ONCE", 3)
    table = log
    for number in range(12):
        table = replaced(table, number % 4, number)
        table = replaced(table, 4 + number, 100 + number)
    found = lake.load_table(log.name())
    snapshot = found.current_snapshot()
    assert snapshot is not None
    assert offsets(found) == [*range(8, 12), *range(100, 112)]
    assert len(snapshot.manifests(found.io)) <= 8


def test_a_view_declared_anew_gets_its_columns_and_rows_in_one_commit(lake: LakeCatalog, tmp_path: Path) -> None:
    before = write_definition(tmp_path)
    schemas.ensure_tables(lake, before)
    view = before.views["by_kind"]
    table = schemas.ensure_view(lake, before, view, "batch_by_kind")
    writer = Writer(Place.of(table))
    row = {
        "window_start": [NOON],
        "window_end": [NOON + timedelta(hours=1)],
        "kind": ["a"],
        "events": [1],
        "total": [2],
    }
    writer.write(pa.RecordBatch.from_pydict({**row, "mean": [2.0]}))
    table = commits.replace(table, None, [], writer.close(), {})

    measures = {"total": "avg(value)", "mean": None}
    after = write_definition(tmp_path, name=before.name, views={"by_kind": {"by": [], "measures": measures}})
    changed = after.views["by_kind"]
    with pytest.raises(IncompatibleDefinition, match=r"views\.by_kind"):
        schemas.ensure_view(lake, after, changed, "batch_by_kind")
    anew, updates = schemas.redeclared(table, after, changed, "batch_by_kind")
    writer = Writer(Place.of(anew))
    keys = {key: row[key] for key in ("window_start", "window_end", "events")}
    writer.write(pa.RecordBatch.from_pydict({**keys, "total": [2.5]}))
    commits.replace(anew, head(table), files_of(table), writer.close(), {}, updates)

    found = schemas.ensure_view(lake, after, changed, "batch_by_kind")
    assert found.scan().to_arrow().to_pylist() == [
        {"window_start": NOON, "window_end": NOON + timedelta(hours=1), "events": 1, "total": 2.5}
    ]


def test_the_tables_of_a_view_have_the_types_of_its_measures(lake: LakeCatalog, tmp_path: Path) -> None:
    pipeline = write_definition(tmp_path)
    schemas.ensure_tables(lake, pipeline)
    for view in pipeline.views.values():
        kinds = {"kind": "string", "events": "long", "total": "long", "mean": "double"}
        versions: dict[str, dict[str, str]] = {"batch_by_kind": {}, "stream_by_kind": {tables.VERSION: "long"}}
        for name, more in versions.items():
            made = schemas.ensure_view(lake, pipeline, view, name)
            found = {field.name: str(field.field_type) for field in made.schema().fields}
            wanted = {"window_start": "timestamptz", "window_end": "timestamptz", **kinds, **more}
            assert found == wanted
            assert [*found][:3] == ["window_start", "window_end", "kind"] and [*found][6:] == [*more]


def test_states_are_plain_json(log: Table, pipeline: Pipeline) -> None:
    table = land(log, pipeline, 0)
    snapshot = table.current_snapshot()
    assert snapshot is not None and snapshot.summary is not None
    assert json.loads(snapshot.summary[Landed.KEY] or "")["offsets"] == {"0": 2}
    assert abs(snapshot.timestamp_ms - time.time() * 1000) < 60_000


def test_a_boundary_without_stream_rows_seals_nothing() -> None:
    edge = Boundary("p", landing=1)
    assert table_state.sealed_through(edge, timedelta(0)) is None
    assert table_state.sealed_through(replace(edge, seen=NOON), timedelta(hours=1)) == NOON - timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "upper"),
    [
        ("a" * 15 + "\ud7ffbbb", "a" * 15 + "\ue000"),
        ("a" * 14 + "\ud7ff\U0010ffffb", "a" * 14 + "\ue000\U0010ffff"),
        ("a" * 15 + "yz", "a" * 15 + "z"),
        ("\U0010ffff" * 17, None),
    ],
    ids=["half a pair", "before the last", "plain", "none higher"],
)
def test_a_long_text_is_written_whatever_its_characters(log: Table, text: str, upper: str | None) -> None:
    """Cut to 16 characters, the last of them one higher, it is a file's upper bound; U+D7FF has half a pair above."""
    with Writer(Place.of(log)) as writer:
        writer.write(rows(0).set_column(0, "id", pa.array([text])))
        (file,) = writer.close()
    number = log.schema().find_field("id").field_id
    assert file.upper_bounds.get(number) == (upper and upper.encode())
    assert file.lower_bounds[number] == text[:16].encode()


def test_a_moment_without_a_bound_leaves_the_others_theirs(lake: LakeCatalog, pipeline: Pipeline) -> None:
    """A window that ends in the year 10000 has an end that Python cannot tell."""
    schemas.ensure_tables(lake, pipeline)
    view = pipeline.views["by_kind"]
    table = schemas.ensure_view(lake, pipeline, view, tables.batch_view_name(view))
    last, kinds = 253_402_297_200_000_000, Place.of(table).arrow
    row = {"window_start": last, "window_end": last + 3_600_000_000, "kind": "a", "events": 1}
    with Writer(Place.of(table)) as writer:
        writer.write(
            pa.RecordBatch.from_arrays(
                [pa.array([value]).cast(kinds.field(name).type) for name, value in row.items()], list(row)
            )
        )
        (file,) = writer.close()
    bounded = {table.schema().find_column_name(number) for number in file.upper_bounds}
    assert bounded == {"kind", "events"}
    assert commits.append(table, [file], {}).scan().count() == 1
