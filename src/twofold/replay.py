"""Ingested files, or corrected records, go through again: planned first, then put into the inbox.

    landed_files, inbox ─► Plan: what goes, what is left out and why ─► copies in replay/<label>/ ─► batch job

A copy is a file like any other, so its ingest is exactly-once too: the same label puts the same names, and content
ingested under a name is not ingested again. Copies of a range are named after the landings that they come from, so
among them the later still wins over the earlier. Rows that were corrected by what does not go, as it is of a later
landing or not there any more, would win over the correction: such a range is refused. So would rows that are corrected
by a file that waits in the inbox, as one landing takes it together with the copies: first it must be landed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold import inbox, tables
from twofold.definition.renderer import text_literal
from twofold.errors import TwofoldError, UsageError
from twofold.lake import Lake
from twofold.reader import Reader
from twofold.taken import TakenFiles, new_files, read_book
from twofold.text import counted, quoted

FOLDER = "replay"
_NAMED = 5
_RANGE = re.compile(r"(\d+)(?:\.\.(\d+)?)?")


@dataclass(frozen=True)
class Copy:
    """One file to put: from the inbox (`landing` is where it was ingested), or from the disk."""

    source: str
    target: str
    size_bytes: int
    sha256: str = ""
    landing: int | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a replay would do."""

    pipeline: str
    copies: tuple[Copy, ...]
    left_out: tuple[str, ...] = ()
    """A sentence for each file that cannot go."""


def numbers(text: str) -> tuple[int, int | None]:
    """A range of landings.

    >>> numbers("3"), numbers("3..5"), numbers("3..")
    ((3, 3), (3, 5), (3, None))
    """
    match = _RANGE.fullmatch(text)
    if not match:
        raise UsageError(f"{text!r} is no range of landings", "write 3, 3..5, or 3.. for all from landing 3 on")
    first, last = int(match[1]), match[2]
    return first, int(last) if last else (None if ".." in text else first)


def label(text: str) -> str:
    """A folder's name made of any text.

    >>> label("manual__2026-11-23T03:51:10+00:00")
    'manual__2026-11-23T03-51-10-00-00'
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_") or "unnamed"


def plan_landings(lake: Lake, first: int, last: int | None, name: str) -> Plan:
    """Files that landings `first` to `last` (None: the last there is) took, and whose content is still there.

    Events without an id have none by which a copy could be the same event: UsageError.
    """
    if not lake.pipeline.event.id:
        raise UsageError(
            f"events of {lake.name} have no id: those of a copy would count beside the first ones",
            "declare an id; fixed records of files that were rejected may go through by --mended",
        )
    prefix = f"{FOLDER}/{label(name)}"
    # What this replay has put before is no landing to be replayed: a range without an end would grow by it each time.
    own = re.compile(rf"{re.escape(prefix)}/\d{{6,}}/")
    taken = [row for row in lake.landed_files() if row["reason"] is None and not own.match(row["file"])]
    newest = taken[-1]["landing"] if taken else 0
    end = newest if last is None else last
    chosen = [row for row in taken if first <= row["landing"] <= end]
    if not chosen:
        raise UsageError(f"{lake.name} has no landing in {first}..{end}", f"the last one is {newest}")
    return _planned(lake, chosen, taken, prefix)


def plan_mended(pipeline: str, files: Sequence[Path], name: str) -> Plan:
    """Files of fixed records, as `twofold rejects --to` wrote them before they were fixed."""
    if not files:
        raise UsageError("no file of fixed records is named", "name those that `twofold rejects --to` wrote, fixed")
    # Unlike `Path.is_file` it takes any name.
    missing = [str(file) for file in files if not os.path.isfile(file)]  # noqa: PTH113
    if missing:
        raise TwofoldError(f"no such file: {', '.join(missing)}", "name files on the machine that runs this")
    targets = {file: inbox.checked_name(f"{FOLDER}/{label(name)}/{file.name}") for file in files}
    if len(set(targets.values())) < len(files):
        raise UsageError("two of the files have the same name", "replay them one at a time")
    return Plan(pipeline, tuple(Copy(str(file), target, file.stat().st_size) for file, target in targets.items()))


def carry_out(lake: Lake, plan: Plan) -> None:
    """Put every copy into the inbox, each whole or not at all; safe to repeat.

    TwofoldError where other files wait there.
    """
    _refuse_waiting(lake, {copy.target for copy in plan.copies})
    folder = lake.inbox()
    for copy in plan.copies:
        try:
            if copy.landing is None:
                folder.put(Path(copy.source), copy.target)
            elif folder.version(copy.target) is None:
                _put_again(folder, TakenFiles(lake).of(copy.landing), copy)
        except FileNotFoundError as error:
            raise TwofoldError(
                f"{inbox.shown(copy.source)} went away since the replay was planned",
                "bring it back, or plan the replay again by the same label: what was put stays as it is",
            ) from error


def _planned(lake: Lake, chosen: Sequence[dict[str, Any]], taken: Sequence[dict[str, Any]], prefix: str) -> Plan:
    files = TakenFiles(lake)
    last = {row["file"]: row["landing"] for row in taken}
    copies: dict[str, Copy] = {}
    left_out: dict[tuple[int, str], str] = {}
    for row in chosen:
        if why := files.absence(row["landing"], row["file"], row["version"], row["sha256"]):
            if row["landing"] < last[row["file"]]:
                why = f"landing {last[row['file']]} took other content under this name"
            left_out[row["landing"], row["file"]] = f"{inbox.shown(row['file'])} of landing {row['landing']}: {why}"
            continue
        target = f"{prefix}/{row['landing']:06}/{row['file']}"
        # Of copies with one content the last decides, so it alone goes.
        copies[row["sha256"]] = Copy(row["file"], target, row["size_bytes"], row["sha256"], row["landing"], row["rows"])
    reaches = chosen[-1]["landing"] == taken[-1]["landing"]
    if copies and (left_out or not reaches):
        _refuse_stale(lake, (chosen[0]["landing"], chosen[-1]["landing"]), left_out, reaches=reaches)
    return Plan(lake.name, tuple(sorted(copies.values(), key=lambda copy: copy.target)), tuple(left_out.values()))


def _refuse_waiting(lake: Lake, own: Collection[str]) -> None:
    """Refuse while files wait that would be landed with the copies, in the order of their names; not for these."""
    folder, waiting = lake.inbox(), []
    for one in new_files(folder.files(), read_book(lake).files):
        with suppress(FileNotFoundError):
            if one.file.name not in own and not (one.known and inbox.digest(folder, one.file.name) in one.known):
                waiting.append(inbox.shown(one.file.name))
    if waiting:
        more = ", …" if len(waiting) > _NAMED else ""
        raise TwofoldError(
            f"{counted(len(waiting), 'file')} of the inbox would be landed together with the copies, whose rows could "
            f"win over newer ones: {', '.join(waiting[:_NAMED])}{more}",
            f"run `twofold batch {lake.name}` first, then the replay again",
        )


def _refuse_stale(lake: Lake, ends: tuple[int, int], left_out: Mapping[tuple[int, str], str], *, reaches: bool) -> None:
    """Refuse where the last row of an id does not go, though an earlier one does, which then would be the last."""
    gone = ", ".join(f"({landing}, {text_literal(name)})" for landing, name in [(0, ""), *left_out])
    rows = f"""WITH _tw_rows AS NOT MATERIALIZED (
      SELECT {quoted(lake.pipeline.event.key)} AS _tw_id, outcome, (landing, file, "row") AS _tw_place,
        landing > {ends[1]} OR (landing, file) IN (VALUES {gone}) AS _tw_stays
      FROM {tables.BATCH_LOG} WHERE landing >= {ends[0]})"""
    known = f"outcome IN ('{tables.ACCEPTED}', '{tables.FILTERED}')"
    stale = f"""{rows} SELECT count(*) FROM (SELECT _tw_id FROM _tw_rows
      WHERE {known} AND _tw_id IN (SELECT _tw_id FROM _tw_rows WHERE {known} AND _tw_stays) GROUP BY _tw_id
      HAVING max(_tw_place) FILTER (_tw_stays) > max(_tw_place) FILTER (NOT _tw_stays))"""
    # Of a rejected row no column has the id: any later row may be its correction.
    rejected = f"""{rows} SELECT count(*) FROM _tw_rows WHERE outcome = '{tables.REJECTED}' AND NOT _tw_stays
      AND _tw_place < (SELECT max(_tw_place) FROM _tw_rows WHERE {known} AND _tw_stays)"""
    with Reader(lake.settings, {lake.name: lake.pipeline}) as reader:
        found = [int(reader.query(query, lake.name).fetchall()[0][0]) for query in (stale, rejected)]
    how = (("ids of", "were"), ("rejected rows of", "may have been"))
    for number, (what, were) in zip(found, how, strict=True):
        if number:
            raise TwofoldError(
                f"{number:,} {what} landings {ends[0]}..{ends[1]} {were} corrected by rows that would not "
                "go again, and would lose the correction",
                _remedy(lake, ends[0], left_out.values(), reaches=reaches),
            )


def _remedy(lake: Lake, first: int, left_out: Collection[str], *, reaches: bool) -> str:
    ways = [] if reaches else [f"extend the range to the last landing: {first}.."]
    if left_out:
        more = ", …" if len(left_out) > _NAMED else ""
        ways.append(f"bring back what would be left out ({', '.join(list(left_out)[:_NAMED])}{more})")
    return "; ".join([*ways, f"or `twofold reland {lake.name}`, which judges rows again in their places"])


def _put_again(folder: inbox.Folder, taken: inbox.Source, copy: Copy) -> None:
    with tempfile.NamedTemporaryFile(prefix="twofold-") as local, taken.open(copy.source) as landed:
        shutil.copyfileobj(landed, local)
        local.seek(0)
        if inbox.sha256(local) != copy.sha256:
            raise TwofoldError(
                f"{copy.source} is not what landing {copy.landing} took: it was changed since",
                "run the batch job, which takes the new content, then plan the replay again",
            )
        folder.put(Path(local.name), copy.target)
