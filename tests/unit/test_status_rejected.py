"""What the status page tells of a log: what was rejected, as it goes on and as its rows are replaced, and over which
event time; on real tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_definition
from tests.lake import LocalLake
from twofold import catalog, commits, schemas, table_state, tables
from twofold.catalog import LakeCatalog
from twofold.reader.pinned import pin
from twofold.settings import Settings
from twofold.status.facts import Extent
from twofold.status.gather import RejectedSoFar, extent_of
from twofold.table_files import of_rows
from twofold.table_state import Landed

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def made(lake: LakeCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalLake:
    """With empty tables, which a reader finds too."""
    monkeypatch.setattr(catalog, "load", lambda _: lake)
    found = LocalLake(Settings(home=tmp_path), write_definition(tmp_path), lake)
    schemas.ensure_tables(lake, found.pipeline)
    return found


def record(offset: int, landing: int, kind: str | None = None, outcome: str | None = None) -> dict[str, Any]:
    """A row of stream_log: rejected for a fault of this kind, or accepted."""
    place = {"kafka_partition": 0, "kafka_offset": offset, "kafka_timestamp": NOW, "landing": landing}
    return {**place, "outcome": outcome or (tables.REJECTED if kind else tables.ACCEPTED), tables.REASON_KIND: kind}


def judged_again(made: LocalLake, *rows: dict[str, Any]) -> None:
    """All rows are replaced by others, in one commit, as `reland` and `erase` do; all landings stay."""
    log = made.table(tables.STREAM_LOG)
    before = table_state.landed(table_state.history_of(log), made.name)
    state = table_state.encode(replace(before, relanded=before.relanded + 1))
    files = pin(made.own, made.name, tables.STREAM_LOG).all_files
    commits.replace(log, log.metadata.current_snapshot_id, files, of_rows(log, rows), state)


def land(made: LocalLake, landing: int, end: int, *rows: dict[str, Any], relanded: int = 0) -> None:
    log = made.table(tables.STREAM_LOG)
    state = Landed(made.name, landing, "t", {0: end}, relanded=relanded)
    commits.append(log, of_rows(log, rows), table_state.encode(state))


def test_what_is_judged_again_or_erased_is_counted_again(made: LocalLake) -> None:
    shown = RejectedSoFar(made)

    def counts() -> dict[str, int]:
        shown.refresh({name: made.history(name).head for name in (tables.STREAM_LOG, tables.BATCH_LOG)}, NOW)
        return {kind: count for (_, kind), count in shown.counts.items()}

    land(made, 1, 3, record(0, 1), record(1, 1, "pattern"), record(2, 1, "max"))
    assert counts() == {"pattern": 1, "max": 1}
    land(made, 2, 4, record(3, 2, "max"))
    assert counts() == {"pattern": 1, "max": 2}
    # Of the rejected ones the first is accepted now, the second erased; and one that was accepted is rejected.
    erased = record(2, 1, outcome=tables.ERASED)
    judged_again(made, record(0, 1, "required"), record(1, 1), erased, record(3, 2, "max"))
    assert counts() == {"required": 1, "max": 1}
    land(made, 3, 5, record(4, 3, "max"), relanded=1)
    assert counts() == {"required": 1, "max": 2}


def test_the_time_line_ends_with_the_calendar(made: LocalLake) -> None:
    """The last microsecond that Python knows; as a number of seconds it is one of the year 10000."""
    last = datetime.max.replace(tzinfo=UTC)
    log = made.table(tables.STREAM_LOG)
    log = commits.append(log, of_rows(log, [{**record(0, 1), "at": at} for at in (NOW, last)]), {})
    (manifest,) = commits.manifests_of(log)
    assert extent_of(log, manifest, "at") == Extent(NOW, last)
