"""What a replay may bring back: never an old row over a correction that does not go with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import lake as by_hand
from tests import small_world
from tests.lake import LocalLake
from tests.unit.test_taken import folder_of, land, made, put, put_away
from twofold import catalog, replay, tables, taken
from twofold.catalog import LakeCatalog
from twofold.errors import TwofoldError, UsageError
from twofold.table_state import Landed

RELAND = "or `twofold reland p`, which judges rows again in their places"


@pytest.fixture(autouse=True)
def _catalog(lake: LakeCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The query of a plan reads the tables of this test."""
    monkeypatch.setattr(catalog, "load", lambda _: lake)


def land_ids(work: LocalLake, name: str, *ids: str, rejected: int = 0, content: str = "") -> None:
    """Land a file with these ids, one a row, and behind them rejected rows."""
    put(work, name, content or f"{name}: {ids}")
    land(work)
    number = taken.read_book(work).landing
    rows: list[dict[str, Any]] = [{**small_world.event(one, 1), "outcome": tables.ACCEPTED} for one in ids]
    rows += [{"outcome": tables.REJECTED, "reason_kind": "out_of_range", "reason": "no", "payload": b"{}"}] * rejected
    places = [{"landing": number, "file": name, "row": row, "landed_at": small_world.START} for row in range(1, 9)]
    logged = [{**row, **place} for row, place in zip(rows, places, strict=False)]
    by_hand.append(work.table(tables.BATCH_LOG), logged, Landed(work.name, number))


def change(work: LocalLake, name: str) -> None:
    put(work, name, "another content")


def remove(work: LocalLake, name: str) -> None:
    (folder_of(work).path / name).unlink()


@pytest.mark.parametrize(
    ("policy", "lose", "why"),
    [
        ("keep", remove, "it is not in the inbox any more"),
        ("keep", change, "it was changed since: other content is under its name"),
        ("delete", lambda work, name: put_away(work), "it was deleted once it was taken"),
    ],
)
def test_rows_do_not_come_back_over_a_correction_whose_file_is_gone(
    lake: LakeCatalog, tmp_path: Path, policy: str, lose: Callable[[LocalLake, str], None], why: str
) -> None:
    """The old rows were put as a new landing, and won."""
    work = made(lake, tmp_path, policy)
    land_ids(work, "jan.json", "a", "b", content="jan")
    land_ids(work, "fix.json", "a")
    lose(work, "fix.json")
    put(work, "jan.json", "jan")
    with pytest.raises(TwofoldError, match=r"^1 ids of landings 1\.\.2 were corrected by rows that would") as refused:
        replay.plan_landings(work, 1, None, "again")
    assert refused.value.remedy == f"bring back what would be left out (fix.json of landing 2: {why}); {RELAND}"


def test_a_range_that_ends_before_a_correction_is_refused(lake: LakeCatalog, tmp_path: Path) -> None:
    work = made(lake, tmp_path, "keep")
    land_ids(work, "jan.json", "a", "b")
    land_ids(work, "fix.json", "a")
    with pytest.raises(TwofoldError, match=r"^1 ids of landings 1\.\.1 were corrected") as refused:
        replay.plan_landings(work, 1, 1, "again")
    assert refused.value.remedy == f"extend the range to the last landing: 1..; {RELAND}"
    assert len(replay.plan_landings(work, 1, None, "again").copies) == 2


def test_what_is_left_out_keeps_no_other_ids_and_no_later_correction_from_going(
    lake: LakeCatalog, tmp_path: Path
) -> None:
    """Of "a" the last row goes, of "c" none does, and "d" is in no other file."""
    work = made(lake, tmp_path, "keep")
    land_ids(work, "jan.json", "a", "b")
    land_ids(work, "fix's.json", "a", "c")
    land_ids(work, "last.json", "a", "d")
    remove(work, "fix's.json")
    plan = replay.plan_landings(work, 1, None, "again")
    assert [copy.source for copy in plan.copies] == ["jan.json", "last.json"]
    assert plan.left_out == ("fix's.json of landing 2: it is not in the inbox any more",)


def test_rejected_rows_do_not_come_back_over_their_correction(lake: LakeCatalog, tmp_path: Path) -> None:
    """Judged again by a changed definition they may be accepted; which ids they have is in no column."""
    work = made(lake, tmp_path, "keep")
    land_ids(work, "first.json", "a")
    land_ids(work, "jan.json", rejected=2)
    land_ids(work, "fix.json", "b")
    with pytest.raises(TwofoldError, match=r"^2 rejected rows of landings 1\.\.2 may have been corrected") as refused:
        replay.plan_landings(work, 1, 2, "again")
    assert refused.value.remedy == f"extend the range to the last landing: 1..; {RELAND}"
    assert len(replay.plan_landings(work, 1, 1, "again").copies) == 1
    assert len(replay.plan_landings(work, 2, None, "again").copies) == 2


@pytest.mark.parametrize("mended", [False, True])
def test_no_copy_is_put_beside_a_file_that_waits(lake: LakeCatalog, tmp_path: Path, mended: bool) -> None:
    """One landing took both in the order of their names, and the old row won over the correction."""
    work = made(lake, tmp_path, "keep")
    land_ids(work, "jan.json", "a", "b")
    put(work, "fix.json", "corrected a")
    fixed = tmp_path / "fixed.jsonl"
    fixed.write_text("{}")
    plan = replay.plan_mended("p", [fixed], "again") if mended else replay.plan_landings(work, 1, None, "again")
    with pytest.raises(TwofoldError, match=r"^1 file of the inbox would be landed together .*: fix\.json") as refused:
        replay.carry_out(work, plan)
    assert refused.value.remedy == "run `twofold batch p` first, then the replay again"
    assert [file.name for file in work.inbox().files()] == ["fix.json", "jan.json"]


def test_what_waits_but_is_not_landed_is_no_hindrance(lake: LakeCatalog, tmp_path: Path) -> None:
    """The plan's own copies, where a kill had left some; content that is known; what was set aside."""
    work = made(lake, tmp_path, "keep")
    land_ids(work, "jan.json", "a", content="jan")
    land_ids(work, "feb.json", "b")
    put(work, "bad.json", "half")
    land(work, aside="bad.json")
    restored = folder_of(work).path / "jan.json"
    restored.unlink()
    put(work, "jan.json", "jan")
    os.utime(restored, (1, 1))
    plan = replay.plan_landings(work, 1, None, "again")
    replay.carry_out(work, replace(plan, copies=plan.copies[:1]))
    replay.carry_out(work, plan)
    assert {copy.target for copy in plan.copies} < {file.name for file in work.inbox().files()}


def test_fixed_records_are_named() -> None:
    """An empty plan was carried out, and the run said that it was done."""
    with pytest.raises(UsageError, match=r"^no file of fixed records is named"):
        replay.plan_mended("p", [], "again")


def test_the_same_label_again_puts_nothing_whatever_its_copies_became(lake: LakeCatalog, tmp_path: Path) -> None:
    """Of a range without an end its own copies were the newest landings, and were copied again each time."""
    work = made(lake, tmp_path, "keep")
    land_ids(work, "jan.json", "a", "b")
    replay.carry_out(work, replay.plan_landings(work, 1, None, "again"))
    land(work)
    there = set(work.inbox().files())
    for end in (None, 1, 2):
        plan = replay.plan_landings(work, 1, end, "again")
        assert [copy.target for copy in plan.copies] == ["replay/again/000001/jan.json"]
        replay.carry_out(work, plan)
        assert set(work.inbox().files()) == there
    # Of another replay they are landings as all others.
    other = replay.plan_landings(work, 1, None, "other")
    assert [copy.landing for copy in other.copies] == [2]
