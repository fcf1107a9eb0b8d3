"""What keeps a snapshot from being expired; each test is named after what went wrong without its guard."""

from datetime import UTC, datetime, timedelta

import pytest

from twofold import retention
from twofold.table_state import History, Landed, Snapshot

NOW = datetime(2024, 1, 10, tzinfo=UTC)


def chain(count: int, states: tuple[int, ...] = (), first_parent: int | None = None) -> History:
    """Snapshots 1 (oldest) to `count` (the head), a day apart, the head an hour old; `states` carry a marker."""
    return History(
        {
            number: Snapshot(
                number,
                number - 1 if number > 1 else first_parent,
                {Landed.KEY: "{}"} if number in states else {},
                int((NOW - timedelta(days=count - number, hours=1)).timestamp() * 1000),
            )
            for number in range(1, count + 1)
        },
        count or None,
    )


@pytest.mark.parametrize(
    ("states", "kept"), [((5,), 1), ((3, 5), 1), ((3,), 3), ((1, 2), 4), ((), retention.EVERYTHING)]
)
def test_a_compaction_does_not_make_the_table_forget_what_it_holds(states: tuple[int, ...], kept: int) -> None:
    assert retention.carries_state(chain(5, states), Landed.KEY) == kept


@pytest.mark.parametrize(("snapshot", "kept"), [(5, 1), (2, 4), (1, 5), (99, retention.EVERYTHING)])
def test_a_view_query_finds_the_snapshot_that_it_goes_on_from(snapshot: int, kept: int) -> None:
    assert retention.is_resumed_from(chain(5), snapshot) == kept


@pytest.mark.parametrize(("first_parent", "kept"), [(None, retention.EVERYTHING), (77, 0)])
def test_a_view_not_begun_finds_the_first_snapshot_or_needs_none(first_parent: int | None, kept: int) -> None:
    assert retention.is_not_begun(chain(5, first_parent=first_parent)) == kept


def test_an_empty_table_reaches_its_first_snapshot() -> None:
    assert retention.reaches_first(chain(0))


@pytest.mark.parametrize(("days", "kept"), [(0, 0), (1, 1), (2, 2), (100, 5)])
def test_a_reader_has_time_to_read_what_it_pinned(days: int, kept: int) -> None:
    assert retention.is_young(chain(5), NOW, timedelta(days=days)) == kept


def test_a_table_with_a_snapshot_a_second_does_not_keep_a_week_of_them() -> None:
    assert retention.is_young(chain(5), NOW, timedelta(days=100), most=3) == 3


@pytest.mark.parametrize(
    ("guards", "expired"),
    [({}, [1, 2, 3, 4]), ({"a": 2}, [1, 2, 3]), ({"a": 2, "b": 4}, [1]), ({"a": retention.EVERYTHING}, [])],
)
def test_the_guard_that_keeps_most_decides(guards: dict[str, int], expired: list[int]) -> None:
    assert retention.expirable(chain(5), guards) == expired


def test_nothing_to_expire_in_an_empty_table() -> None:
    assert retention.expirable(chain(0), {}) == []
