"""What maintenance does to a table, step by step; each step is safe to repeat and to kill.

small files, many manifests ─► rewritten; as `replace`, without a state of ours: the nearest ancestor's stays in force
snapshots ─► expired as far as the guards of `twofold.retention` let
days of stream_log that everyone has read ─► promised in a property, then deleted
files that no snapshot refers to, old and named as our writers name files ─► removed
ids with rows further apart than `id_horizon` ─► reported
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table as IcebergTable
from pyspark.sql import Row
from tenacity import Retrying, retry_if_exception, stop_after_attempt

from spark_jobs import union
from spark_jobs.checkpoints import Checkpoint
from spark_jobs.days import Scratch, scratch
from spark_jobs.spark_session import JVM_FAILED, Job
from twofold import catalog as catalogs
from twofold import database, inbox, retention, serving, table_files, table_state, tables
from twofold.errors import TwofoldError
from twofold.lake import Lake
from twofold.reader import pruning
from twofold.reader.pinned import Pinned
from twofold.retention import Stretch, Upkeep
from twofold.settings import CATALOG
from twofold.table_state import Boundary, Folded, History, Landed
from twofold.text import quoted

_CONFLICTS = ("ValidationException", "CommitFailedException", "Missing required files", "Cannot commit rewrite")
_MANY_MANIFESTS = 20
_ATTEMPTS = 5
_IDS_PER_CALL = 2000
_LOG_RETENTION = timedelta(hours=1)
"""How long a reader of stream_log may take; its exactness needs no old snapshots."""
_TRIES = 3


# ---- small files ----


@dataclass(frozen=True)
class Rewritten:
    """What one rewrite did."""

    files: int = 0
    into: int = 0
    size_bytes: int = 0
    conflict: bool = False
    """Another job changed the same files meanwhile: its commit stands, nothing was rewritten."""


def rewrite_files(job: Job, table: str, min_input_files: int, order: str | None = None) -> Rewritten:
    """Rewrite a day's data files where at least `min_input_files` of them are too small (or one is too large).

    `order` sorts the rows of the new files: "" by the table's own sort order, None not at all.
    """
    arguments = [f"options => map('min-input-files', '{min_input_files}')"]
    arguments += [] if order is None else ["strategy => 'sort'"]
    arguments += [f"sort_order => '{order}'"] if order else []
    try:
        row = _call(job, "rewrite_data_files", table, *arguments)
    except JVM_FAILED as error:
        if not _conflict(error):
            raise
        return Rewritten(conflict=True)
    return Rewritten(row["rewritten_data_files_count"], row["added_data_files_count"], row["rewritten_bytes_count"])


def rewrite_manifests(job: Job, table: str) -> int:
    """Rewrite the manifests where they are many; returns how many.

    Tried again where another job committed meanwhile: Iceberg refuses to replace a manifest that is gone, and each
    commit of the stream drops those that a rewrite of data files has emptied.
    """
    found = job.lake.find(table)
    snapshot = found.current_snapshot() if found else None
    if found is None or snapshot is None or len(snapshot.manifests(found.io)) < _MANY_MANIFESTS:
        return 0
    again = Retrying(retry=retry_if_exception(_conflict), stop=stop_after_attempt(_ATTEMPTS), reraise=True)
    row = again(_call, job, "rewrite_manifests", table)
    return int(row["rewritten_manifests_count"])


def _conflict(error: BaseException) -> bool:
    """Whether another job committed to the same table first."""
    return isinstance(error, JVM_FAILED) and any(sign in str(error) for sign in _CONFLICTS)


def _call(job: Job, procedure: str, table: str, *more: str) -> Row:
    arguments = ", ".join([f"table => '{job.qualified(table)}'", *more])
    return job.spark.sql(f"CALL {CATALOG}.system.{procedure}({arguments})").collect()[0]


# ---- snapshots ----


@dataclass(frozen=True)
class Expired:
    """What expiry did to one table."""

    snapshots: int = 0
    kept: int = 0
    files: int = 0
    """Data files, manifests and manifest lists that only expired snapshots referred to."""
    guards: Mapping[str, int] = field(default_factory=dict)
    """What keeps how many of the newest snapshots."""


def expire(job: Job, table: str, asked: Upkeep, now: datetime) -> Expired:
    """Expire what no guard keeps; each call names its snapshots, so commits made meanwhile are never touched."""
    history = job.lake.history(table)
    per_batch = (tables.STREAM_LOG, *map(tables.stream_view_name, job.pipeline.views.values()))
    most = retention.MOST_PER_BATCH if table in per_batch else retention.EVERYTHING
    guards = _guards(job, table, history) | {
        "age": retention.is_young(history, now, asked.snapshot_retention, most),
        "newest": asked.keep_snapshots,
    }
    ids = retention.expirable(history, guards)
    depth = sum(1 for _ in history.ancestors())
    files = 0
    for start in range(0, 0 if asked.dry_run else len(ids), _IDS_PER_CALL):
        named = ", ".join(map(str, ids[start : start + _IDS_PER_CALL]))
        # With ids alone, everything older than five days would go too.
        arguments = ["older_than => TIMESTAMP '1970-01-01 00:00:00'", f"snapshot_ids => array({named})"]
        files += sum(_call(job, "expire_snapshots", table, *arguments).asDict().values())
    return Expired(len(ids), depth - len(ids), files, {name: min(depth, kept) for name, kept in guards.items()})


def log_expirable(job: Job, history: History, now: datetime) -> list[int]:
    """What the stream may expire of stream_log while it runs: all but the last hour and what a reader still needs."""
    behind = table_state.covered(history, table_state.boundary(job.lake.history(tables.EVENTS), job.pipeline.name))
    young = {
        "age": retention.is_young(history, now, _LOG_RETENTION, retention.MOST_PER_BATCH),
        # Readers look for rows past the boundary in the files that were added since.
        "query": min(retention.is_resumed_from(history, behind.id), retention.MOST_PER_BATCH) if behind else 0,
    }
    return retention.expirable(history, _guards(job, tables.STREAM_LOG, history) | young)


def _guards(job: Job, table: str, history: History) -> dict[str, int]:
    """What must be kept of this table regardless of age: the state it carries, and what its readers resume from."""
    if history.head is None or table == tables.LANDED_FILES:
        return {}
    keys = {tables.STREAM_LOG: Landed.KEY, tables.BATCH_LOG: Landed.KEY, tables.EVENTS: Boundary.KEY}
    guards = {"state": retention.carries_state(history, keys.get(table, Folded.KEY))}
    if wants := {tables.STREAM_LOG: _resumes, tables.EVENTS: _recomputes}.get(table):
        guards |= {f"view {view}": wants(job, view, history) for view in job.pipeline.views}
    return guards


def _resumes(job: Job, view: str, log: History) -> int:
    """What a view's query may have to read again: its checkpoint knows this; its table only knows what was written."""
    resumed = Checkpoint.of(job, view).resumed_from()
    return retention.is_not_begun(log) if resumed is None else retention.is_resumed_from(log, resumed["snapshot_id"])


def _recomputes(job: Job, view: str, events: History) -> int:
    """Snapshots that say which days a batch view must still recompute; without them the whole view is recomputed."""
    known = table_state.folded(job.lake.history(tables.batch_view_name(view)))
    if known is None or known.snapshot is None or events.since(known.snapshot) is None:
        return 0
    return retention.is_resumed_from(events, known.snapshot)


# ---- retention of stream_log ----


@dataclass(frozen=True)
class Retained:
    """What retention left of stream_log."""

    first_day: date | None = None
    """All days (of arrival) before it are gone; None: nothing was asked, or nothing could go."""
    deleted_rows: int = 0
    """Records: with `event.each` each has a row for every element."""
    offsets: Mapping[int, int] = field(default_factory=dict)
    """Partition → first offset left."""


def retain(job: Job, keep: timedelta, now: datetime, dry_run: bool) -> Retained:
    """Delete the days of stream_log that are older than `keep` and far enough behind everyone who reads it.

    Killed between the promise and the deletion, the promise stands and the rows are deleted by the next run.
    """
    table = job.lake.find(tables.STREAM_LOG)
    before = table_state.retained_from(table.properties) if table else {}
    stretches = _stretches(job)
    day = retention.first_day_kept(stretches, _readers(job), now.date(), keep)
    records = sum(count for stretch, count in stretches.items() if stretch.day < day)
    if not records:
        return Retained(offsets=before)
    offsets = retention.offsets_kept_from(stretches, day, before)
    if not dry_run:
        name = job.qualified(tables.STREAM_LOG)
        promised = json.dumps({str(partition): offset for partition, offset in sorted(offsets.items())})
        job.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('{table_state.RETAINED_FROM}' = '{promised}')")
        arrival = tables.arrival(job.pipeline)
        job.spark.sql(f"DELETE FROM {name} WHERE {arrival} < {serving.moment(day)}")
    return Retained(day, records, offsets)


def _stretches(job: Job) -> dict[Stretch, int]:
    """With their records: not every offset between has one, and with `event.each` one may have many rows."""
    arrival = tables.arrival(job.pipeline)
    records = "count(DISTINCT kafka_offset)" if job.pipeline.event.each else "count(*)"
    found = job.spark.sql(
        f"""SELECT {serving.day_of(arrival)} AS _tw_day, kafka_partition, min(kafka_offset), max(kafka_offset),
  {records} FROM {job.qualified(tables.STREAM_LOG)} GROUP BY 1, 2"""
    ).collect()
    return {Stretch(day, partition, first, last): count for day, partition, first, last, count in found}


def _readers(job: Job) -> list[dict[int, int]]:
    """Offsets (exclusive) that the union and each view query have behind them; a view not begun has none."""
    logs = union.read(job.lake)
    # Rows that were replaced since are to be read again.
    positions = [{} if logs.is_outdated else logs.boundary.offsets]
    for view in job.pipeline.views:
        resumed = Checkpoint.of(job, view).resumed_from()
        read = History(logs.stream.history.snapshots, resumed["snapshot_id"] if resumed else None)
        positions.append(table_state.landed(read, job.pipeline.name).offsets)
    return positions


# ---- orphans: files left by commits that were cut short, and by copies into the inbox ----


def remove_orphans(catalog: Catalog, pipeline: str, table: str, asked: Upkeep, now: datetime) -> int:
    """Remove a table's files that no snapshot refers to, old enough not to be of a commit in flight.

    Only files of the kinds that we write ourselves, whatever else lies in a folder: see `twofold.inbox`.
    """
    found = catalogs.find(catalog, pipeline, table)
    if found is None:
        return 0
    written = table_files.present(found)
    old = table_files.own(found, (path for path, moment in written.items() if moment < now - asked.orphan_age))
    # Without an old file there is no orphan: a look that reads no manifest.
    orphans = old - _referenced(catalog, found) if old else set()
    if not asked.dry_run:
        table_files.remove(found, orphans)
    return len(orphans)


def remove_leftovers(lake: Lake, asked: Upkeep, now: datetime) -> int:
    """Remove the copies that `twofold land` was killed in. (An S3 upload leaves none.)"""
    folder = lake.inbox()
    old = folder.leftovers(now - asked.orphan_age) if isinstance(folder, inbox.LocalFolder) else []
    for path in [] if asked.dry_run else old:
        path.unlink(missing_ok=True)
    return len(old)


def _referenced(catalog: Catalog, table: IcebergTable) -> set[str]:
    """Paths of all files that are needed; TwofoldError where the metadata cannot be read to its end.

    Files that a commit removed during a look are not referred to at the next look. But where a manifest stays missing,
    the data files that it named are not known: removing the others would lose what a repair could still save.
    """
    with ThreadPoolExecutor(table_files.THREADS) as pool:
        for _ in range(_TRIES):
            table = catalog.load_table(table.name())
            found = table_files.referenced(pool, table)
            if not found.unread:
                return set(found.locations)
    raise TwofoldError(
        f"{'.'.join(table.name())}: {min(found.unread)} is missing, so the files that it names look like orphans",
        "restore the file from a backup; no orphan of this table was removed",
    )


# ---- ids whose rows lie further apart in event time than `id_horizon`: look-ups by id do not reach that far ----
#
# boundary of the last search (PostgreSQL) ─► rows landed since ─► their ids ─► all rows of these ids, in both logs
#                                                                                   └─► further apart ─► kept, reported

BEYOND = "ids beyond the horizon"
"""Kind of the result in `twofold.database`, which names ids."""
_SHOWN = 10
_KEPT = 1000


@dataclass(frozen=True)
class Beyond:
    """How many ids, and some of them."""

    ids: int
    shown: tuple[str, ...]


def search_beyond(lake: Lake, *, keep: bool) -> Beyond:
    """Search what was landed since the last search that was to `keep` its result; all that is known is reported.

    It costs what is new: of what was landed before only ids and times are read, and only of files whose ids overlap the
    new ones'. It begins again where rows were replaced or removed since, or the horizon is another.
    """
    logs, last = union.read(lake), database.latest_result(lake.settings, lake.name, BEYOND)
    scope = _scope(lake, logs)
    known: Mapping[str, Any] = last.body if last and last.body["scope"] == scope else {"ids": [], "count": 0}
    offsets = {int(partition): end for partition, end in known.get("offsets", {}).items()}
    edge = Boundary(lake.name, offsets=offsets, landing=known.get("landing", 0))
    now = logs.next
    found: list[str] = []
    if (now.offsets, now.landing) != (edge.offsets, edge.landing):
        with scratch(lake.settings) as duck:
            found = far_apart(logs, duck, edge)
    more = sorted(set(found).difference(known["ids"]))
    ids, count = [*known["ids"], *more][:_KEPT], known["count"] + len(more)
    if keep:
        covered = {"offsets": now.offsets, "landing": now.landing}
        database.save_result(lake.settings, lake.name, BEYOND, {"scope": scope, **covered, "ids": ids, "count": count})
    return Beyond(count, tuple(sorted(ids)[:_SHOWN]))


def _scope(lake: Lake, logs: union.Logs) -> dict[str, Any]:
    """What a kept search holds for, as JSON has it."""
    event, log = lake.pipeline.event, logs.stream.table
    retained = table_state.retained_from(log.properties) if log else {}
    return {
        "id": list(event.id),
        "time": event.time,
        "id_horizon_s": event.id_horizon.total_seconds(),
        "relanded": list(logs.next.relanded),
        "retained_from": {str(partition): first for partition, first in retained.items()},
    }


def far_apart(logs: union.Logs, duck: Scratch, edge: Boundary) -> list[str]:
    """The ids with rows past `edge` that have rows further apart than the horizon, as texts."""
    pipeline, engine = logs.pipeline, logs.engine(duck)
    key, time = quoted(pipeline.event.key), quoted(pipeline.event.time)
    horizon_us = pipeline.event.id_horizon // timedelta(microseconds=1)
    nothing = Boundary(pipeline.name)

    def contenders(stream: str, batch: str, since: Boundary) -> str:
        parts = (
            serving.stream_contenders(pipeline, stream, since.offsets),
            serving.batch_contenders(pipeline, batch, since.landing),
        )
        return " UNION ALL ".join(f"SELECT {key}, {time} FROM ({serving.duckdb(part)}) AS _tw_one" for part in parts)

    past = contenders(engine.stream_log(edge), engine.batch_log(edge), edge)
    new = engine.table("new", f"SELECT DISTINCT {key} FROM ({past}) AS _tw_past")
    where = pruning.overlapping(duck.connection, pipeline.event.key, new)

    def overlapping(log: Pinned) -> str:
        return duck.read(log, log.narrowed(log.all_files, where))

    everything = contenders(overlapping(logs.stream), overlapping(logs.batch), nothing)
    rows = duck.connection.execute(
        f"""SELECT CAST({key} AS VARCHAR) FROM ({everything}) AS _tw_all SEMI JOIN {new} USING ({key})
GROUP BY {key} HAVING epoch_us(max({time})) - epoch_us(min({time})) > {horizon_us}"""
    ).fetchall()
    return [row[0] for row in rows]
