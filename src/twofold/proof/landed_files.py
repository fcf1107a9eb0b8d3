"""I4 for the batch layer: batch_log holds each landed file's records, each once, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from twofold import inbox, tables
from twofold.definition.names import ELEMENT
from twofold.proof import recount, sql, values
from twofold.proof.findings import MOST_OFFENDERS, Findings
from twofold.proof.values import Place
from twofold.proof.world import World
from twofold.taken import TakenFiles
from twofold.text import counted


@dataclass(frozen=True)
class LoggedFile:
    """One version of a file that a landing ingested, and its rows in batch_log."""

    landing: int
    file: str
    rows: int
    version: str
    sha256: str
    logged: int
    distinct: int
    """Rows that differ in their number, or with `event.each` in number and element."""
    records: int
    """Numbers that differ."""
    first: int
    filled: int
    """Rows that are not blank, as those of erased records are."""

    @property
    def whole(self) -> bool:
        """Whether batch_log has as many records as were ingested, each once, numbered from 1."""
        return self.rows == self.records and self.logged == self.distinct and self.first >= 1

    def __str__(self) -> str:
        return f"{inbox.shown(self.file)} (landing {self.landing})"


def compare(world: World, found: Findings) -> None:
    """Landed files against batch_log, and against the files that are still in the inbox unchanged."""
    _register_landed(world)
    taken = _taken(world)
    if wrong := [file for file in taken if not file.whole]:
        named = [f"{file}: {file.rows:,} landed, {file.logged:,} logged, {file.records:,} different" for file in wrong]
        found.violated(f"{counted(len(wrong), 'file')} not whole in batch_log", named)
    _elements(world, found)
    _no_strangers(world, found)
    _none_twice(world, found)
    rows, logged = sum(file.rows for file in taken), world.number(f"SELECT count(*) FROM {tables.BATCH_LOG}")
    found.numbers |= {"files": len(taken), "file_rows": rows, "batch_log": logged}
    found.say(f"{counted(len(taken), 'landed file')}, {counted(rows, 'record')}, {logged:,} rows in batch_log")
    _set_aside(world, found)
    _recount(world, taken, found)


def _register_landed(world: World) -> None:
    """`landed`: landed_files up to the pinned batch_log's last landing; and that landing's files, if missing there."""
    state = world.landed(tables.BATCH_LOG)
    world.connection.execute(
        f"""CREATE TEMP TABLE landed AS SELECT landing, file, "rows", version, sha256, reason
            FROM {tables.LANDED_FILES} WHERE landing <= {state.landing}"""
    )
    for file in state.files:
        values = {name: file.get(name) for name in ("landing", "file", "rows", "version", "sha256", "reason")}
        world.connection.execute(
            """INSERT INTO landed SELECT $landing, $file, $rows, $version, $sha256, $reason
               WHERE NOT EXISTS (SELECT 1 FROM landed WHERE landing = $landing AND file = $file)""",
            values,
        )


def _taken(world: World) -> list[LoggedFile]:
    distinct = f'("row", {ELEMENT})' if world.pipeline.event.each else '"row"'
    rows = world.rows(
        f"""WITH logged AS (SELECT landing, file, count(*) AS logged, count(DISTINCT {distinct}) AS different,
                              count(DISTINCT "row") AS records, min(coalesce("row", 0)) AS first,
                              count(*) FILTER (outcome IS DISTINCT FROM '{tables.ERASED}') AS filled
                            FROM {tables.BATCH_LOG} GROUP BY landing, file)
            SELECT t.landing, t.file, coalesce(t."rows", 0), coalesce(t.version, ''), coalesce(t.sha256, ''),
              coalesce(logged, 0), coalesce(different, 0), coalesce(records, 0), coalesce(first, 1), coalesce(filled, 0)
            FROM landed AS t LEFT JOIN logged AS l ON l.landing = t.landing AND l.file = t.file
            WHERE t.reason IS NULL AND t.landing > {world.proved_landing} ORDER BY t.landing, t.file"""
    )
    return [LoggedFile(*row) for row in rows]


def _elements(world: World, found: Findings) -> None:
    """With `event.each`, a record has its elements 1, 2, …, or one row numbered 0."""
    if world.pipeline.event.each is None:
        return
    torn = sql.torn_elements(tables.BATCH_LOG, sql.FROM_FILES, sql.IN_FILE)
    world.see_none(found, "record", "of files without all elements from the first to the last", torn)


def _no_strangers(world: World, found: Findings) -> None:
    """Rows of batch_log are of landings only."""
    rows = sql.if_several("count(*)", "rows")
    strange = f"""SELECT landing, file, concat(file, ':', min("row"), ' (landing ', landing, ')', {rows})
                  FROM {tables.BATCH_LOG} ANTI JOIN (FROM landed WHERE reason IS NULL) USING (landing, file)
                  GROUP BY landing, file"""
    world.see_none(found, "file", "in batch_log that no landing took", strange)


def _none_twice(world: World, found: Findings) -> None:
    """The same content of a file in two landings, one right after the other: it did not change in between.

    Nor did what was ingested, where only other contents were set aside in between; so version 0.2.0 took files.
    """
    twice, around = (
        f"""SELECT file, landing, concat(file, ': landings ', before, ' and ', landing) AS _tw_where
            FROM (SELECT file, landing, sha256, lag(landing) OVER w AS before, lag(sha256) OVER w AS sha256_before
                  FROM landed WHERE {some} WINDOW w AS (PARTITION BY file ORDER BY landing))
            WHERE sha256 = sha256_before AND sha256 <> ''"""
        for some in ("true", "reason IS NULL")
    )
    world.see_none(found, "file", "landed twice", twice)
    again = [where for (where,) in world.rows(f"SELECT _tw_where FROM ({around} EXCEPT {twice}) ORDER BY ALL")]
    _not_proved(found, again, "landed again as before, over corrections made in between, if any")


def _set_aside(world: World, found: Findings) -> None:
    """Files whose newest version was set aside, unless what lies there now is what was ingested before."""
    rows = world.rows(
        """SELECT file, reason, arg_max(sha256, landing) FILTER (reason IS NULL) OVER (PARTITION BY file) FROM landed
           QUALIFY row_number() OVER (PARTITION BY file ORDER BY landing DESC) = 1 AND reason IS NOT NULL
           ORDER BY file"""
    )

    def is_ingested(file: str, digest: str) -> bool:
        try:
            with world.lake.inbox().open(file) as stream:
                return inbox.sha256(stream) == digest
        except FileNotFoundError:
            return True

    aside = [
        f"{inbox.shown(file)} ({reason})"
        for file, reason, digest in rows
        if digest is None or not is_ingested(file, digest)
    ]
    found.numbers["files_set_aside"] = len(aside)
    _not_proved(found, aside, "set aside")


def _recount(world: World, taken: list[LoggedFile], found: Findings) -> None:
    """Count the records of files that are still there as they were ingested, without Spark or the product's readers."""
    files = {(file.landing, file.file): file for file in taken}

    def look(places: Iterable[Place]) -> dict[Place, str]:
        """Why the files of some places are not there as they were ingested, by a look of now; without the others."""
        now = TakenFiles(world.lake)
        return {at: why for at in places if (why := now.absence(*at, files[at].version, files[at].sha256))}

    lying, wanted = TakenFiles(world.lake), {one.source.column for one in recount.in_cells(world.pipeline)}
    gone, irregular, counts = look(files), dict[Place, str](), dict[Place, int]()
    for place in sorted(files.keys() - gone.keys()):
        try:
            counts[place] = recount.records(lying.of(place[0]), place[1], wanted, world.pipeline.files)
        except (recount.Irregular, FileNotFoundError) as error:
            irregular[place] = f"{inbox.shown(place[1])} ({error})"
    wrong = {place for place, number in counts.items() if number != files[place].rows}
    # What somebody put there, or took away, between the look and the count is no fault of the landing.
    gone |= look([*irregular, *wrong])
    for place in sorted(wrong - gone.keys()):
        named = [f"{place[1]}: {files[place].rows:,}, it has {counts[place]:,}"]
        found.violated("a landed file has another number of records", named)
    gone |= values.compare_files(world, sorted(counts.keys() - gone.keys()), found, look)
    recounted, odd = counts.keys() - gone.keys(), sorted(irregular.keys() - gone.keys())
    # Of a landing of no records, or of erased ones alone, nothing is there that could be proved.
    unproved = [f"{files[place]}: {gone[place]}" for place in sorted(gone) if files[place].filled]
    found.numbers |= {"files_recounted": len(recounted), "files_irregular": len(odd)}
    found.numbers["files_changed_or_gone"] = len(unproved)
    found.say(f"{counted(len(recounted), 'file')} recounted")
    _not_proved(found, unproved, "not there any more as ingested (`files.taken: archive` keeps every version)")
    _not_proved(found, [irregular[place] for place in odd], "could not be recounted")


def _not_proved(found: Findings, files: list[str], what: str) -> None:
    if files:
        more = ", …" if len(files) > MOST_OFFENDERS else ""
        found.not_proved(f"{counted(len(files), 'file')} {what}: {', '.join(files[:MOST_OFFENDERS])}{more}")
