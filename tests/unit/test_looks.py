"""Is there work for a job? Tables and inbox in every state that decides it, without a service."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests import lake as by_hand
from tests import overhear, running
from tests.conftest import write_definition
from tests.lake import LocalLake
from twofold import inbox, looks, metrics, schemas, tables, taken
from twofold.catalog import LakeCatalog
from twofold.definition.model import Schedule
from twofold.settings import Settings
from twofold.table_state import Boundary, Landed

Change = Callable[[LocalLake], None]


@pytest.fixture
def made(lake: LakeCatalog, tmp_path: Path) -> LocalLake:
    """A lake with one file in the inbox that was taken, united and folded."""
    found = LocalLake(Settings(home=tmp_path), write_definition(tmp_path), lake)
    schemas.ensure_tables(lake, found.pipeline)
    put(found, "old.json", b"{}")
    land(found)
    unite(found)
    return found


def put(lake: LocalLake, name: str, content: bytes) -> None:
    folder = lake.inbox()
    assert isinstance(folder, inbox.LocalFolder)
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / name).write_bytes(content)


def land(lake: LocalLake, *, recorded: bool = True, offsets: int = 0) -> None:
    """Take all that lies in the inbox; or records of Kafka up to `offsets`."""
    if offsets:
        log = lake.table(tables.STREAM_LOG)
        by_hand.append(log, [], Landed(lake.name, 1, "t", {0: offsets}))
        return
    number = taken.read_book(lake).landing + 1
    files = tuple(
        {"landing": number, "file": one.name, "version": one.version, "sha256": one.name, "rows": 0}
        for one in lake.inbox().files()
    )
    by_hand.append(lake.table(tables.BATCH_LOG), [], Landed(lake.name, number, files=files))
    if recorded:
        by_hand.append(lake.table(tables.LANDED_FILES), files)


def unite(lake: LocalLake) -> None:
    by_hand.append(lake.table(tables.EVENTS), [], Boundary(lake.name, landing=taken.read_book(lake).landing))
    fold(lake)


def fold(lake: LocalLake) -> None:
    for view in lake.pipeline.views.values():
        table = schemas.ensure_view(lake.catalog(), lake.pipeline, view, tables.batch_view_name(view))
        by_hand.append(table, [], looks.view_state(lake.pipeline, view, lake.history(tables.EVENTS), None))


def never_made(lake: LocalLake, table: str) -> None:
    shutil.rmtree(lake.table(table).location().removeprefix("file://"))
    lake.catalog().drop_table((lake.name, table))


BOTH, NONE = {looks.BATCH, looks.UNION}, set[str]()
STATES: dict[str, tuple[Change, set[str]]] = {
    "nothing new": (lambda lake: None, BOTH),
    "a new file": (lambda lake: put(lake, "new.json", b"{}"), {looks.UNION}),
    "new content of a file": (lambda lake: put(lake, "old.json", b"{ }"), {looks.UNION}),
    "a hidden file": (lambda lake: put(lake, "_new.json", b"{}"), BOTH),
    "a name that no table can hold": (lambda lake: put(lake, "\udcff.json", b"{}"), BOTH),
    "a landing not yet united": (land, {looks.BATCH}),
    "a landing cut short": (lambda lake: land(lake, recorded=False), NONE),
    "records of Kafka": (lambda lake: land(lake, offsets=3), {looks.BATCH}),
    "events moved on, the view did not": (
        lambda lake: by_hand.append(lake.table(tables.EVENTS), [], Boundary(lake.name, landing=1)),
        {looks.BATCH},
    ),
    "a view that was never folded": (lambda lake: never_made(lake, "batch_by_kind"), {looks.BATCH}),
}


@pytest.mark.parametrize("state", STATES)
def test_a_run_ends_with_the_look_exactly_where_nothing_is_to_do(made: LocalLake, state: str) -> None:
    change, idle = STATES[state]
    change(made)
    found = {kind: looks.idle(made, kind) for kind in (looks.BATCH, looks.UNION, "maintenance")}
    assert {kind for kind, report in found.items() if report is not None} == idle
    if (batch := found[looks.BATCH]) is not None:
        assert (batch["landings"], batch["rows"], batch["files"]) == ([], 0, [])
        passed_over = [r"\udcff.json was passed over: its name is not UTF-8; rename it"]
        assert batch["warnings"] == (passed_over if state.startswith("a name") else [])
    if (union := found[looks.UNION]) is not None:
        assert (union["inserted"], union["view_days"], union["landing"]) == (0, {"by_kind": 0}, 1)


@pytest.mark.parametrize("kind", [looks.BATCH, looks.UNION])
def test_an_idle_run_is_a_good_one_and_tells_nothing_of_the_duration_of_the_next(
    made: LocalLake, tmp_path: Path, kind: str
) -> None:
    settings = running.fresh_settings(tmp_path, tmp_path)
    with overhear.statsd_lines(settings) as lines:
        assert looks.idle(replace(made, settings=settings), kind) is not None
    names = {line.partition(",")[0] for line in lines}
    assert metrics.RUN_GOOD.name in names
    assert metrics.RUN_SECONDS.name not in names


def test_of_a_job_without_a_schedule_no_older_due_time_is_left(made: LocalLake, tmp_path: Path) -> None:
    settings = running.fresh_settings(tmp_path, tmp_path)
    pipeline = replace(made.pipeline, schedule=Schedule(batch=None))
    with overhear.statsd_lines(settings) as lines:
        looks.idle(replace(made, settings=settings, pipeline=pipeline), looks.BATCH)
    assert f"{metrics.RUN_DUE.name},pipeline={made.name},kind=batch:0|g" in lines
