"""The catalog made again from real tables in a folder: what names the last commit, and what nobody can tell."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import FileIO
from pyiceberg.table import Table

from tests.conftest import write_definition
from tests.lake import append
from twofold import commits, recatalog, schemas, table_state, tables
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.recatalog import BEHIND, NAMED, NEW, REFUSED, FoundTable
from twofold.table_state import Landed

LOG = ("p", tables.STREAM_LOG)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return write_definition(tmp_path, name="p")


@pytest.fixture
def log(lake: SqlCatalog, pipeline: Pipeline) -> Table:
    """A log of two commits, beside the other tables."""
    log = schemas.ensure_tables(lake, pipeline)[tables.STREAM_LOG]
    return land(land(log))


def land(log: Table) -> Table:
    """One commit with one record."""
    offset = table_state.landed(table_state.history_of(log), "p").landing
    row = {"id": "x", "outcome": "accepted", "kafka_partition": 0, "kafka_offset": offset, "landing": offset + 1}
    append(log, [row], Landed("p", offset + 1, offsets={0: offset + 1}))
    return log.catalog.load_table(LOG)


@contextmanager
def beside(lake: SqlCatalog, database: Path | None = None) -> Iterator[SqlCatalog]:
    """Another catalog on the same bucket: empty, or as a copy has it."""
    folder = Path(lake.properties["warehouse"].removeprefix("file://")).parent
    path = folder / f"{len(list(folder.glob('*.db')))}.db"
    if database:
        shutil.copy(database, path)
    found = SqlCatalog("test", uri=f"sqlite:///{path}", warehouse=lake.properties["warehouse"])
    yield found
    found.engine.dispose()


@pytest.fixture
def copied(lake: SqlCatalog, log: Table, tmp_path: Path) -> Path:
    """The catalog as it was after two commits."""
    return Path(shutil.copy(tmp_path / "catalog.db", tmp_path / "copied.db"))


@pytest.fixture
def lost(lake: SqlCatalog, copied: Path) -> Iterator[SqlCatalog]:
    """A catalog that knows nothing."""
    with beside(lake) as found:
        yield found


def unheard(lake: SqlCatalog, copied: Path, commit: Callable[[Table], Table] = land) -> Table:
    """A third commit whose writer was killed before the catalog named it: its files lie there."""
    with beside(lake, copied) as other:
        return commit(other.load_table(LOG))


def marked(log: Table) -> Table:
    return commits.set_properties(log, {"one": "more"})


def made(catalog: SqlCatalog) -> dict[str, FoundTable]:
    """The catalog made again, and what was planned."""
    plan = {entry.table: entry for entry in recatalog.plan(catalog)}
    for entry in plan.values():
        if entry.state in (NEW, BEHIND):
            recatalog.carry_out(catalog, entry)
    return plan


def test_a_lost_catalog_is_as_before_and_the_tables_go_on(
    lake: SqlCatalog, log: Table, lost: SqlCatalog, pipeline: Pipeline
) -> None:
    with pytest.raises(TwofoldError, match="that the catalog does not know") as refused:
        recatalog.refuse_forgotten(lost, "p", tables.names(pipeline))
    assert "twofold recatalog" in refused.value.remedy
    assert {entry.state for entry in made(lost).values()} == {NEW}
    before = {name: lake.load_table(name) for name in lake.list_tables("p")}
    assert {name: lost.load_table(name) for name in lost.list_tables("p")} == before
    assert land(lost.load_table(LOG)).scan().to_arrow().num_rows == 3
    assert {entry.state for entry in made(lost).values()} == {NAMED}
    recatalog.refuse_forgotten(lost, "p", tables.names(pipeline))


def test_one_pipeline_alone(lake: SqlCatalog, log: Table, lost: SqlCatalog) -> None:
    lake.create_namespace("other")
    other = lake.create_table("other.events", log.schema())
    assert [(entry.table, entry.metadata) for entry in recatalog.plan(lost, "other")] == [
        ("events", other.metadata_location)
    ]


@pytest.mark.parametrize("case", ["refused writer", "goes on", "says the same"])
def test_of_two_commits_on_one_the_one_that_was_made_is_found(
    lake: SqlCatalog, log: Table, copied: Path, lost: SqlCatalog, case: str
) -> None:
    if case == "says the same":
        unheard(lake, copied, marked)
        last = marked(log)
        assert made(lost)[tables.STREAM_LOG].state == NEW
        assert lost.load_table(LOG).properties == last.properties
        return
    loser = unheard(lake, copied)
    last = land(log)
    if case == "refused writer":
        snapshot = loser.current_snapshot()
        assert snapshot
        commits.remove(loser.io, [snapshot.manifest_list])  # as its writer does
    else:
        last = land(last)
    made(lost)
    assert lost.load_table(LOG) == last


def test_a_commit_that_nobody_heard_of_counts_where_it_is_the_last(
    lake: SqlCatalog, copied: Path, lost: SqlCatalog
) -> None:
    alone = unheard(lake, copied)
    made(lost)
    assert lost.load_table(LOG).metadata == alone.metadata


def test_a_commit_that_goes_while_it_is_looked_at_is_named(
    log: Table, lost: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a job which was refused: it takes its own files away, as soon as they were listed here."""
    listed = recatalog._versions

    def listed_then_gone(io: FileIO, folder: str) -> dict[int, list[str]]:
        found = listed(io, folder)
        if folder.endswith(tables.STREAM_LOG):
            Path(log.metadata_location.removeprefix("file://")).unlink()
        return found

    monkeypatch.setattr(recatalog, "_versions", listed_then_gone)
    (entry,) = (one for one in recatalog.plan(lost) if one.table == log.name()[-1])
    assert entry.state == REFUSED
    assert entry.text.startswith(f"{log.metadata_location} went away while it was looked at")


def test_where_nothing_tells_which_commit_was_made_both_are_named_and_the_others_done(
    lake: SqlCatalog, log: Table, copied: Path, lost: SqlCatalog
) -> None:
    both = [unheard(lake, copied).metadata_location, land(log).metadata_location]
    plan = made(lost)
    assert plan[tables.STREAM_LOG].state == REFUSED
    assert all(location in plan[tables.STREAM_LOG].text for location in both)
    assert tables.EVENTS in {name[-1] for name in lost.list_tables("p")}
    assert not lost.table_exists(LOG)
    Path(both[0].removeprefix("file://")).unlink()
    made(lost)
    assert lost.load_table(LOG).metadata_location == both[1]


@pytest.mark.parametrize("torn", [b"", b'{"format-version": 2, "ta', b"[]"])
def test_a_file_cut_short_is_passed_over_beside_a_whole_one_or_named(log: Table, lost: SqlCatalog, torn: bytes) -> None:
    """As a full disk leaves one: it ended the command, and no table after it was done."""
    newest = Path(log.metadata_location.removeprefix("file://"))
    beside_it, after_it = (
        newest.with_name(f"{version}-0f0f0f0f-0000-4000-8000-000000000000.metadata.json")
        for version in (newest.name.partition("-")[0], "00099")
    )
    beside_it.write_bytes(torn)
    (entry,) = (one for one in recatalog.plan(lost) if one.table == log.name()[-1])
    assert (entry.state, entry.metadata) == (NEW, log.metadata_location)
    after_it.write_bytes(torn)
    plan = made(lost)
    assert plan[log.name()[-1]].state == REFUSED
    assert f"{after_it} cannot be read (" in plan[log.name()[-1]].text
    assert [one.state for name, one in plan.items() if name != log.name()[-1]] == [NEW] * (len(plan) - 1)


@pytest.mark.parametrize(
    ("later", "state"),
    [(1, NAMED), (2, BEHIND), (22, BEHIND)],
    ids=["one commit, which may be in flight", "two commits", "more than metadata remembers"],
)
def test_a_catalog_brought_back_from_an_older_copy_is_moved_on(
    lake: SqlCatalog, log: Table, copied: Path, later: int, state: str
) -> None:
    before = log.metadata_location
    for _ in range(later):
        log = land(log)
    with beside(lake, copied) as found:
        plan = made(found)
        assert plan[tables.STREAM_LOG].state == state
        assert found.load_table(LOG).metadata_location == (before if state == NAMED else log.metadata_location)
        if state == BEHIND:
            with pytest.raises(TwofoldError, match="changed meanwhile"):
                recatalog.carry_out(found, plan[tables.STREAM_LOG])


def test_what_is_one_commit_ahead_goes_along_where_the_catalog_is_older(
    lake: SqlCatalog, log: Table, copied: Path
) -> None:
    last = [land(land(log)), marked(lake.load_table(("p", tables.BATCH_LOG)))]
    with beside(lake, copied) as found:
        assert sorted(entry.state for entry in made(found).values()) == [NAMED, NAMED, BEHIND, BEHIND]
        assert [found.load_table(table.name()) for table in last] == last


def test_killed_on_the_way_the_next_run_moves_on_what_is_left(lake: SqlCatalog, log: Table, copied: Path) -> None:
    """That a table is two commits behind tells that the catalog is an older copy: it is moved on last."""
    batch = marked(lake.load_table(("p", tables.BATCH_LOG)))
    last = [land(log), commits.set_properties(batch, {"two": "more"})]
    with beside(lake, copied) as found:
        first = next(entry for entry in recatalog.plan(found) if entry.state == BEHIND)
        recatalog.carry_out(found, first)
        made(found)
        assert [found.load_table(table.name()) for table in last] == last


def test_another_table_in_the_catalog_or_a_bucket_elsewhere_is_refused(
    lake: SqlCatalog, log: Table, lost: SqlCatalog, tmp_path: Path
) -> None:
    lost.create_namespace("p")
    other = lost.create_table(LOG, log.schema(), location=f"file://{tmp_path}/elsewhere")
    entry = made(lost)[tables.STREAM_LOG]
    assert (entry.state, lost.load_table(LOG)) == (REFUSED, other)
    assert "does not come from" in entry.text
    shutil.copytree(tmp_path / "tables", tmp_path / "moved" / "tables")
    with beside(lake) as moved:
        moved.properties["warehouse"] = f"file://{tmp_path}/moved/tables"
        assert {(entry.state, "was written for" in entry.text) for entry in recatalog.plan(moved)} == {(REFUSED, True)}
