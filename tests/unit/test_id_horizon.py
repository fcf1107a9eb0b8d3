"""Ids too far apart: found among what is new, whatever of both logs they are far from; without services."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from spark_jobs import maintenance, union
from spark_jobs.days import scratch
from tests import lake as by_hand
from tests.conftest import write_definition
from tests.lake import LocalLake
from twofold import schemas, tables
from twofold.catalog import LakeCatalog
from twofold.settings import Settings
from twofold.table_state import Boundary, Landed

START = datetime(2026, 3, 1, tzinfo=UTC)


def row(id_: str, day: int, **place: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"id": id_, "at": START + timedelta(days=day), "kind": "a", "outcome": tables.ACCEPTED, **place}


def records(first: int, *events: tuple[str, int]) -> list[dict[str, Any]]:
    return [
        row(*event, kafka_partition=0, kafka_offset=offset, kafka_timestamp=START, landing=1)
        for offset, event in enumerate(events, first)
    ]


@pytest.fixture
def made(lake: LakeCatalog, tmp_path: Path) -> LocalLake:
    """A week's horizon; two landings of records, and one of a file."""
    found = LocalLake(Settings(home=tmp_path), write_definition(tmp_path), lake)
    schemas.ensure_tables(lake, found.pipeline)
    log, name = found.table(tables.STREAM_LOG), found.name
    by_hand.append(log, records(0, ("a", 0), ("b", 0), ("c", 0)), Landed(name, 1, "t", {0: 3}))
    later = [*records(3, ("a", 20), ("b", 7), ("z", 0)), {**records(6, ("b", 40))[0], "outcome": tables.REJECTED}]
    by_hand.append(log, later, Landed(name, 2, "t", {0: 7}))
    file = [row("c", 30, landing=1, file="f.json", row=1, landed_at=START)]
    by_hand.append(found.table(tables.BATCH_LOG), file, Landed(name, 1))
    return found


@pytest.mark.parametrize(
    ("offset", "landing", "expected"),
    [(0, 0, {"a", "c"}), (3, 1, {"a"}), (7, 0, {"c"}), (7, 1, set()), (4, 1, set())],
)
def test_ids_too_far_apart_are_found_by_what_is_past_the_last_search(
    made: LocalLake, offset: int, landing: int, expected: set[str]
) -> None:
    edge = Boundary(made.name, offsets={0: offset}, landing=landing)
    with scratch(made.settings) as duck:
        assert set(maintenance.far_apart(union.read(made), duck, edge)) == expected
