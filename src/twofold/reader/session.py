"""One reading session: opens what SQL names, each table pinned at its first opening, and runs the SQL.

with Reader(settings) as reader:
    reader.query("SELECT count(*) FROM flights.unified_events").fetchall()
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import duckdb
from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile

from twofold import catalog as catalogs
from twofold import commits, schemas, tables
from twofold.definition.model import Pipeline, View
from twofold.errors import QueryError
from twofold.reader import engine, pruning, statements, unified
from twofold.reader.engine import FileSource
from twofold.reader.pinned import Pinned, pin
from twofold.reader.unified import DuckDBEngine, Windows
from twofold.settings import Settings
from twofold.text import quoted


class Reader:
    """A DuckDB connection on which a pipeline's plain names appear as they are asked for."""

    def __init__(
        self,
        settings: Settings,
        pipelines: Mapping[str, Pipeline] | None = None,
        scratch: Path | None = None,
        memory: str = "",
    ) -> None:
        """`scratch`: the folder to spill into past `memory`; by default that of temporary files, past most of it."""
        self.catalog: Catalog = catalogs.load(settings)
        self.pipelines = dict(pipelines or {})
        self._scratch = tempfile.TemporaryDirectory(prefix="twofold-", dir=scratch)
        self.connection: DuckDBPyConnection = engine.connect(Path(self._scratch.name), memory)
        self._pinned: dict[tuple[str, str], Pinned] = {}
        self._opened: set[tuple[str, str]] = set()
        self._keywords = engine.keywords(self.connection)
        self._stand_ins = engine.stand_ins(Path(self._scratch.name))
        self._sources: list[FileSource] = []
        self._engines: dict[str, DuckDBEngine] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        self.close()
        met = error.__context__ if isinstance(error, QueryError) else error
        if isinstance(met, (FileNotFoundError, duckdb.IOException, duckdb.InvalidInputException)):
            for name in (one.name for one in self._pinned.values() if one.table and commits.is_expired(one.table)):
                raise expired(name) from error

    def close(self) -> None:
        """Close the connection and delete what it spilled."""
        self.connection.close()
        self._scratch.cleanup()

    def query(self, sql: str, default: str | None = None) -> DuckDBPyRelation:
        """The result of one reading statement; tables of the pipeline `default` need no prefix.

        It runs when fetched: fetch it before the next query, which may need other files.

        Raises QueryError for what is wrong with the SQL, now or (DuckDB's own errors) when it is fetched.
        """
        sql = statements.with_quotes(sql, self.pipelines, self._keywords)
        hint = statements.unquoted_hint(sql, self.pipelines.values(), self._keywords)
        statement = statements.only_reading(self.connection, sql, hint)
        body = self._names_as_sql(default) if statements.is_show_tables(statement.body) else statement.body
        absent: QueryError | None = None
        for namespace, wanted in statements.mentioned(body, self.pipelines, default).items():
            try:
                self.open(self.pipelines[namespace], wanted)
            except QueryError as error:  # unless it is the name of a column
                absent = absent or error
        schema = default if default in {namespace for namespace, _ in self._opened} else "main"
        self._narrow(body, schema)
        try:
            return self.connection.sql(statement.explain + body)
        except duckdb.Error as error:
            known = statements.unknown_table(body, str(error), self.pipelines.values(), default)
            raise (absent or known or engine.failure(error)) from None

    def open(self, pipeline: Pipeline, wanted: Iterable[str]) -> None:
        """Make these plain names of a pipeline queryable, each as of now or of its first opening."""
        fresh = [
            name
            for name in statements.offered(pipeline)
            if name in wanted and (pipeline.name, name) not in self._opened
        ]
        if fresh and not self.catalog.namespace_exists(pipeline.name):
            raise QueryError(
                f"pipeline {pipeline.name} has no tables yet: none of its jobs ever ran",
                f"run `twofold stream {pipeline.name}`, or `twofold land {pipeline.name} FILE` "
                f"and `twofold batch {pipeline.name}`",
            )
        self.pin_in_order(pipeline, fresh)
        absent: QueryError | None = None
        for name in fresh:
            try:
                query = self._view(pipeline, name)
            except QueryError as error:
                absent = absent or error
                continue
            for database in (engine.PLAN, engine.DATA):
                self.connection.execute(f"USE {database}.main")
                self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(pipeline.name)}")
                self.connection.execute(f"CREATE OR REPLACE VIEW {statements.qualified(pipeline, name)} AS {query}")
            self._opened.add((pipeline.name, name))
        if absent:
            raise absent

    def pinned(self, pipeline: Pipeline, table: str) -> Pinned:
        """One of a pipeline's tables, as of its first use in this session."""
        key = (pipeline.name, table)
        if key not in self._pinned:
            self._pinned[key] = pin(self.catalog, *key, schemas.shapes(pipeline).get(table))
        return self._pinned[key]

    def read(self, pinned: Pinned, files: tuple[DataFile, ...]) -> str:
        """A relation of some files of a pinned table."""
        made = FileSource(len(self._sources), pinned, files)
        self._sources.append(made)
        made.stand_in(self.connection, self._stand_ins, pruning.prefix(made.number))
        made.show(self.connection, files)
        return made.relation

    def pin_in_order(self, pipeline: Pipeline, wanted: Iterable[str]) -> None:
        """Pin in the data's way backwards: a row that moves from a log into `events` meanwhile is seen in the log."""
        needed = set(wanted)
        union = {tables.EVENTS, tables.STREAM_LOG, tables.BATCH_LOG}
        if statements.UNIFIED_EVENTS in needed:
            needed |= union
        for view in pipeline.views:
            if statements.unified_view_name(view) in needed:
                needed |= {tables.batch_view_name(view), *union}
            if statements.live_view_name(view) in needed:
                needed |= {tables.batch_view_name(view), tables.stream_view_name(view)}
        logs = (tables.EVENTS, tables.STREAM_LOG, tables.BATCH_LOG, tables.LANDED_FILES)
        order = (*map(tables.batch_view_name, pipeline.views), *logs, *map(tables.stream_view_name, pipeline.views))
        for table in order:
            if table in needed:
                self.pinned(pipeline, table)

    def _view(self, pipeline: Pipeline, name: str) -> str:
        if name == statements.UNIFIED_EVENTS:
            return self.engine_of(pipeline).unified()
        for view in pipeline.views.values():
            batch = tables.batch_view_name(view)
            if name == statements.unified_view_name(view.name):
                return unified.unified(view, self.pinned(pipeline, batch), self.windows(pipeline, view), self.read)
            if name == tables.stream_view_name(view):
                return unified.streamed(pipeline, view, self.pinned(pipeline, name), self.read)
            if name == statements.live_view_name(view.name):
                stream = self.pinned(pipeline, tables.stream_view_name(view))
                return unified.live(pipeline, view, self.pinned(pipeline, batch), stream, self.read)
        pinned = self.pinned(pipeline, name)
        if pinned.table is None and name in tables.view_names(pipeline):
            raise unified.never_made(pipeline, name)
        return f"SELECT * FROM {self.read(pinned, pinned.all_files)}"

    def windows(self, pipeline: Pipeline, view: View) -> Windows:
        """The part of `unified_<view>` that is not in the pinned batch_<view>: folded, as of the pinned tables."""
        self.pin_in_order(pipeline, [statements.unified_view_name(view.name)])
        return unified.windows_of(self.engine_of(pipeline), view, self.pinned(pipeline, tables.batch_view_name(view)))

    def engine_of(self, pipeline: Pipeline) -> DuckDBEngine:
        """The steps of the union over a pipeline's pinned tables; they run once in a session."""
        if pipeline.name not in self._engines:
            pinned = (
                self.pinned(pipeline, tables.EVENTS),
                self.pinned(pipeline, tables.STREAM_LOG),
                self.pinned(pipeline, tables.BATCH_LOG),
            )
            schemas.require_readable(pipeline, (each.table for each in pinned))
            self._engines[pipeline.name] = DuckDBEngine.over(self.connection, pipeline, pinned, self.read)
        return self._engines[pipeline.name]

    def _narrow(self, sql: str, schema: str) -> None:
        """Let every source read only the files that this query needs, whatever the query before it needed."""
        bounds = {}
        if pruning.may_help(sql):
            self.connection.execute(f"USE {engine.PLAN}.{quoted(schema)}")
            bounds = pruning.bounds(self.connection, sql)
        self.connection.execute(f"USE {engine.DATA}.{quoted(schema)}")
        for made in self._sources:
            where = bounds.get(made.number, pruning.EVERYTHING)
            made.show(self.connection, made.pinned.narrowed(made.files, where))

    def _names_as_sql(self, default: str | None) -> str:
        there = [p for name, p in sorted(self.pipelines.items()) if self.catalog.namespace_exists(name)]
        rows = [
            (pipeline.name, name)
            for pipeline in there
            if default in (None, pipeline.name)
            for name in statements.offered(pipeline)
        ]
        values = ", ".join(f"({i}, '{pipeline}', '{name}')" for i, (pipeline, name) in enumerate(rows))
        listed = f"(VALUES {values or '(0, NULL, NULL)'}) AS _tw_listed(_tw_place, pipeline, name)"
        return f"SELECT pipeline, name FROM {listed} WHERE name IS NOT NULL ORDER BY _tw_place"


def expired(name: str) -> QueryError:
    """A table's files are gone, as others have expired the snapshot that is read."""
    return QueryError(
        f"{name} was expired while it was read",
        "run it again; `twofold maintain` keeps what is read for as long as its --snapshot-retention says",
    )
