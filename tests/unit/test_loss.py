"""What Kafka deleted before it landed: named, let go in one commit by comparison, and kept in the table's state."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from tests.conftest import write_definition
from twofold import commits, loss, schemas, table_state, tables
from twofold.errors import BoundaryError
from twofold.table_state import Landed, Lost
from twofold.topic import TopicState

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOST = Lost(0, 20, 30, AT, after=AT)
STATE = Landed("p", 3, "id", {0: 20, 1: 7}, start={0: 4}, declared_start="latest")


def topic(partitions: dict[int, tuple[int, int]], topic_id: str = "id") -> TopicState:
    return TopicState("t", topic_id, partitions, {})


@pytest.fixture
def log(lake: SqlCatalog, tmp_path: Path) -> Table:
    return schemas.ensure_tables(lake, write_definition(tmp_path, name="p"))[tables.STREAM_LOG]


@pytest.mark.parametrize(
    ("landed", "partitions", "lost"),
    [
        (STATE, {0: (20, 25), 1: (0, 9)}, []),
        (STATE, {0: (30, 30), 1: (8, 9)}, [(0, 20, 30), (1, 7, 8)]),
        (STATE, {0: (0, 20), 1: (7, 7), 2: (5, 6)}, [(2, 0, 5)]),  # added since: it begins at 0
        (Landed("p"), {0: (5, 9)}, []),  # the stream begins with the first record that Kafka has
    ],
)
def test_lost_is_what_lies_between_the_landed_end_and_what_kafka_has(
    landed: Landed, partitions: dict[int, tuple[int, int]], lost: list[tuple[int, int, int]]
) -> None:
    found = loss.find(landed, topic(partitions), AT)
    assert [(one.partition, one.start, one.end) for one in found] == lost
    if not lost:
        loss.require_none(landed, topic(partitions))
        return
    with pytest.raises(BoundaryError, match="never landed") as refused:
        loss.require_none(landed, topic(partitions))
    assert "twofold accept-loss p" in refused.value.remedy


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (topic({0: (0, 3), 1: (0, 9)}), r"t\[0\] ends at 3, landed up to 20"),
        (topic({0: (30, 40)}, "another"), "deleted and created again"),
    ],
)
def test_a_kafka_that_lost_its_data_is_no_loss_to_let_go(state: TopicState, why: str) -> None:
    for refuse in (loss.require_none, lambda landed, state: loss.find(landed, state, AT)):
        with pytest.raises(BoundaryError, match=why) as refused:
            refuse(STATE, state)
        assert "new pipeline name" in refused.value.remedy


@pytest.mark.parametrize("begun", ["landed", "not landed yet"])
def test_a_loss_is_kept_in_the_state_and_only_on_top_of_what_was_looked_at(
    lake: SqlCatalog, log: Table, begun: str
) -> None:
    if begun == "landed":
        log = commits.append(log, (), table_state.encode(STATE))
    else:
        log = commits.set_properties(log, table_state.as_property(STATE))
    loss.record(log, STATE, [LOST])
    now = lake.load_table(log.name())
    known = table_state.begun(table_state.landed(table_state.history_of(now), "p"), now.properties)
    assert known == replace(STATE, offsets={0: 30, 1: 7}, lost=(LOST,))
    assert known.lost_offsets == 10
    with pytest.raises(CommitFailedException):
        loss.record(log, STATE, [LOST])
    assert lake.load_table(log.name()).metadata == now.metadata


@pytest.mark.parametrize(
    ("at_ms", "said"),
    [
        (1_772_366_400_000, ", sent before 2026-03-01 12:00:00 UTC"),
        (0, ", sent before 1970-01-01 00:00:00 UTC"),
        (-1, ""),
        (253_402_300_800_000, ""),
    ],
)
def test_of_records_without_a_time_stamp_nobody_says_when_they_were_sent(at_ms: int, said: str) -> None:
    """Kafka gives -1 for them: they were sent before 1969-12-31 23:59:59. A sender may choose the year 10,000, too."""
    lost = replace(LOST, after=None, before=loss._moment(at_ms))
    assert loss.sentence("t", lost) == f"t[0]@20–29: 10 offsets{said}"


def test_what_was_accepted_as_lost_by_version_0_2_0_says_no_more() -> None:
    lost = replace(LOST, after=AT, before=datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC))
    assert loss.sentence("t", lost) == "t[0]@20–29: 10 offsets, sent after 2026-03-01 12:00:00 UTC"
