"""What the status page is told: the time line, the rate, and what is wrong. Pure parts only."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from twofold import table_state
from twofold.commands import stack
from twofold.database import KeptResult
from twofold.errors import BoundaryError
from twofold.evolution import IGNORED, Difference
from twofold.services import controller as report
from twofold.services.controller import State
from twofold.services.record import Record
from twofold.services.verdict import HealthLimits
from twofold.status import gather, measures
from twofold.status.facts import (
    SILENT,
    CheckedInvariant,
    Extent,
    Layers,
    Log,
    Outcomes,
    Proved,
    Rejected,
    ServiceStatus,
    Speed,
    Status,
)
from twofold.status.measures import find_problems, worst_first
from twofold.table_state import Boundary, Folded, History, Landed, Snapshot

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
NOW = datetime(2026, 5, 1, 12, 0, 7, tzinfo=UTC)
NOTHING = History({}, None)


def chain(*summaries: dict[str, str], ago_s: tuple[float, ...] = ()) -> History:
    """Snapshots 1, 2, … one after another, so many seconds before NOW."""
    ages = ago_s or tuple(0.0 for _ in summaries)
    found = {
        number: Snapshot(number, number - 1 or None, summary, round((NOW.timestamp() - age) * 1000))
        for number, (summary, age) in enumerate(zip(summaries, ages, strict=True), 1)
    }
    return History(found, len(summaries) or None)


def day(number: int) -> datetime:
    return datetime(2026, 5, number, tzinfo=UTC)


def test_the_union_has_yet_to_take_what_lies_past_the_boundary() -> None:
    edge = Boundary("p", "t", {0: 10, 1: 4}, landing=2, max_event_time=day(3))
    histories = {
        "events": chain(table_state.encode(edge), {}),  # compaction carries no state
        "stream_log": chain(table_state.encode(Landed("p", 7, "t", {0: 15, 1: 4, 2: 3}))),
        "batch_log": chain(table_state.encode(Landed("p", 5))),
    }
    logs = dict.fromkeys(histories, Log())
    views = [chain(table_state.encode(Folded(1, "d", day(2)))), chain(table_state.encode(Folded(1, "d", day(1))))]
    found = measures.layers("p", logs, histories, views)
    assert (found.stream_past_boundary, found.landings_past_boundary) == (5 + 3, 3)
    assert (found.boundary, found.sealed_through) == (day(3), day(1))
    assert measures.sealed_through([*views, NOTHING]) is None
    with pytest.raises(BoundaryError, match="'q'"):
        measures.layers("q", logs, histories, views)


def test_only_commits_that_landed_rows_count_for_the_rate() -> None:
    mark = table_state.encode(Landed("p", 1))
    log = chain(
        {**mark, "added-records": "999"},
        {**mark, "added-records": "900"},
        {"added-records": "5000"},  # compaction
        {**mark, "added-records": "30"},
        {**mark, "added-records": "1001", "deleted-records": "1001"},  # reland, or erase
        {**mark, "added-records": "8", "deleted-records": "9"},
        {**mark, "added-records": "90"},
        ago_s=(3600, 120, 59, 50, 40, 30, 5),
    )
    assert measures.rows_per_second(log, NOW) == 2.0
    bins = measures.landed(log, NOW)
    assert len(bins) == measures.WINDOW / measures.BIN
    assert bins[-1][0] == datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    assert [rows for _, rows in bins if rows] == [900, 30, 90]
    assert {later - first for (first, _), (later, _) in pairwise(bins)} == {measures.BIN}


def test_extents_join() -> None:
    assert measures.joined([None, Extent(day(2), day(3)), Extent(day(1), day(2)), None]) == Extent(day(1), day(3))
    assert measures.joined([None]) is None


def test_a_service_says_what_is_wrong_with_it() -> None:
    assert measures.unsupervised("stream", {}) == ServiceStatus("stream", "not running")
    broken = measures.unsupervised("stream", {"state": "retrying", "problem": "<script>", "healthy": False})
    assert (broken.running, broken.healthy, broken.state, broken.text) == (True, False, "retrying", "<script>")


def test_a_supervised_service_tells_its_budget_and_its_page_of_the_runbook() -> None:
    never = State("p", "stream", "STOPPED", 0, 0.0, "", 0, 3, Record(), 0)
    asleep = measures.supervised("stream", never, {}, HealthLimits(1))
    assert (asleep.state, asleep.running, asleep.healthy) == ("not running", False, True)
    down = replace(never, spent=3, record=Record(left_down="restarted 3 times"))
    found = measures.supervised("stream", down, {}, HealthLimits(1))
    assert (found.state, found.healthy, found.restarts, found.budget) == ("left down", False, 3, 3)
    assert found.runbook == "service-left-down"
    assert measures.supervised("stream", replace(never, changes=2), {}, HealthLimits(1)).changes == 2
    starting = measures.supervised("stream", replace(never, pid=7, uptime_s=2, state="RUNNING"), {}, HealthLimits(1))
    assert (starting.state, starting.running, starting.healthy) == ("starting", True, True)
    hangs = replace(never, pid=7, uptime_s=2000, state="RUNNING", health="h:1")
    silent = measures.supervised("stream", hangs, {}, HealthLimits(1))
    assert (silent.state, silent.running, silent.healthy) == ("silent", True, False)
    assert measures.supervised("stream", replace(hangs, record=Record(stopped_at=1.0)), {}, HealthLimits(1)).healthy
    says = {"batch": None, "offsets_behind": None, "last_batch_age_s": 50.0, "healthy": False}
    runs = replace(never, pid=7, uptime_s=70, state="RUNNING")
    first_batch = measures.supervised("stream", runs, {**says, "state": "running"}, HealthLimits(1))
    assert (first_batch.state, first_batch.healthy) == ("running", True)
    retrying = measures.supervised(
        "stream", runs, {**says, "state": "retrying", "problem": "no catalog"}, HealthLimits(1)
    )
    assert (retrying.state, retrying.healthy) == ("retrying", False)
    assert "no catalog" in retrying.text


FINE = (
    Layers(Log(), Log(), Log(rows=9), day(1), day(1), 0, 0, NOW),
    Speed(0, 1.0, None, ()),
    Outcomes(day(1)),
    Proved(NOW, (CheckedInvariant("I1", "holds", ""),)),
    (ServiceStatus("producer", "finished"), ServiceStatus("stream", "running", running=True)),
)


def severities(*state: object) -> list[tuple[str, str]]:
    found = worst_first(find_problems("p", NOW, *state))  # type: ignore[arg-type]
    return [(problem.severity, problem.command) for problem in found]


def test_an_error_without_a_text_is_told_by_its_name() -> None:
    assert gather.unreadable(TimeoutError()).text == "the tables cannot be read: TimeoutError"
    assert gather.unreadable(OSError("no\nroute")).text == "the tables cannot be read: no"


def test_nothing_is_wrong_where_all_is_well() -> None:
    assert severities(*FINE) == []


def test_each_problem_names_its_command_the_worst_first() -> None:
    covered, fast, outcomes, _, (producer, stream) = FINE
    old = replace(covered, stream_past_boundary=7, united_at=NOW - timedelta(days=3), lost=5)
    unread = replace(outcomes, set_aside=1, rejected=(Rejected("stream", "not JSON", 4),))
    violated = Proved(NOW, (CheckedInvariant("I2", "violated", "1 offset missing"),))
    stuck = (producer, replace(stream, healthy=False, state="stuck"))
    assert severities(old, replace(fast, offsets_behind=None), unread, violated, stuck) == [
        ("error", "twofold services p stream --restart"),
        ("error", "twofold prove p"),
        ("warning", "twofold status"),
        ("warning", "twofold union p"),
        ("warning", "twofold rejects p --layer batch"),
        ("note", "twofold accept-loss p"),
        ("note", "twofold rejects p"),
    ]
    silent = (producer, replace(stream, healthy=False, state=SILENT))
    assert severities(*FINE[:-1], silent) == [("warning", "twofold services p stream")]
    ignored = [Difference(IGNORED, "topic.start", "latest has no effect", "a new name starts afresh")]
    assert severities(*FINE, ignored) == [("warning", "twofold check --against-tables p")]
    told = find_problems("p", NOW, old, fast, unread, violated, stuck)
    pages = {problem.runbook for problem in told if problem.runbook} | set(report.RUNBOOKS.values())
    assert all((RUNBOOKS / f"{page}.md").exists() for page in pages)


def test_a_job_that_stands_still_is_wrong_only_while_records_wait() -> None:
    covered, fast, outcomes, proved, (producer, _) = FINE
    down = (producer, ServiceStatus("stream", "not running"))
    assert severities(covered, fast, outcomes, proved, down) == []
    waiting = severities(covered, replace(fast, offsets_behind=1), outcomes, proved, down)
    assert waiting == [("warning", "twofold services p stream --start")]


def test_a_proof_is_asked_for_where_there_is_none_or_an_old_one() -> None:
    covered, fast, outcomes, _, running = FINE
    old, recent = (Proved(NOW - timedelta(days=2, hours=hours), ()) for hours in (1, -1))
    asked = [severities(covered, fast, outcomes, proved, running) for proved in (None, old, recent)]
    assert asked == [[("note", "twofold prove p")], [("warning", "twofold prove p")], []]
    assert severities(replace(covered, events=Log()), fast, outcomes, None, running) == []


def test_a_proof_that_version_0_2_0_kept_is_shown() -> None:
    """It kept neither since when it had looked, nor when it had last looked at everything."""
    check = {"id": "I2", "ok": True, "behind": True, "state": "behind", "text": "3 to go"}
    kept = KeptResult(NOW, {"pipeline": "p", "ok": True, "invariants": [check]})
    found = gather.proved(kept)
    assert ([one.state for one in found.checks], found.since, found.in_full_at) == (["behind"], None, None)
    assert stack._said(kept) == "I2 behind (of everything, 2026-05-01 12:00 UTC)"


def test_a_status_is_plain_json() -> None:
    covered, fast, outcomes, proved, running = FINE
    status = Status("p", NOW, covered, replace(fast, landed=((NOW, 3),)), outcomes, proved, running, ())
    plain = json.loads(json.dumps(status.to_json()))
    assert plain["speed"]["landed"] == [["2026-05-01T12:00:07+00:00", 3]]
    assert plain["services"][1]["state"] == "running"
