"""Names that users declare against names that generated SQL uses: neither may matter to the other.

words of SQL, of both engines and of the SQL itself ─► a definition that `twofold check` calls sound
      ─► the real texts, run by DuckDB on a few rows ─► the answers that any other names would give
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import sqlglot
from pyiceberg.catalog.memory import InMemoryCatalog
from ruamel.yaml import YAML
from sqlglot import exp

from tests import sql_words
from twofold import comparison, schemas, serving, tables, windows
from twofold.definition import names as rules
from twofold.definition.expressions import check_filter
from twofold.definition.load import check_file, load_file
from twofold.definition.model import Pipeline, View
from twofold.definition.types import FieldType
from twofold.errors import QueryError
from twofold.lake import Lake as PipelineLake
from twofold.proof import recomputed, sql, world
from twofold.proof.findings import Findings
from twofold.proof.sent import Sent
from twofold.proof.world import World
from twofold.reader import engine, output, statements
from twofold.settings import Settings
from twofold.table_state import Boundary
from twofold.text import quoted

Row = dict[str, Any]

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
VIEW = {"window": "1 day", "measures": {"n": "count(*)"}}
BOUNDARY = Boundary("p", "t", {0: 3})
NOON_DAY = (NOON - datetime(1970, 1, 1, tzinfo=UTC)).days
LONG_AGO_US = -(1 << 62)
ANSWER = {1: "stream", 2: "batch", 4: "stream", 5: "stream", 6: "batch"}
"""The layer of each id in the unified events of `Lake`."""


def definition(fields: Sequence[str], key: str, time: str, views: Mapping[str, Any], **others: Any) -> Row:  # noqa: ANN401
    """A definition of whole numbers."""
    declared: Row = {name: {"type": "long"} for name in fields}
    declared[key] = {"type": "long", "required": True}
    declared[time] = {"type": "timestamp", "required": True}
    event = {"id": key, "time": time, "fields": declared}
    return {"name": "p", "topic": "p", "event": event, "lateness": "1 hour", "views": dict(views), **others}


def written(folder: Path, document: Row) -> Path:
    """The file of a definition."""
    path = folder / "p.yaml"
    YAML(typ="safe").dump(document, path)
    return path


def word_views(words: Sequence[str], size: int) -> dict[str, Any]:
    """Views that use each word as a measure over another word, and as a group, each view called by a word too."""
    found = {}
    for start in range(0, len(words), size):
        part = words[start : start + size]
        measures = {word: f"max(`{other}`)" for word, other in zip(part, [*part[1:], part[0]], strict=True)}
        found[view_name(part[0], "m")] = {"window": "1 day", "measures": measures}
        found[view_name(part[0], "g")] = {"window": "1 day", "by": list(part), "measures": {rest(part): "count(*)"}}
    return found


def view_name(word: str, use: str) -> str:
    """A view's name that begins with a letter."""
    return f"{use}_{word.lstrip('_')}"[:48]


def rest(part: Sequence[str]) -> str:
    """A measure that no group is called by, for it must differ from them."""
    return next(word for word in ("times", "place", "difference", "n") if word not in part)


@dataclass
class Lake:
    """A pipeline's tables in DuckDB, with three events behind the boundary and a tail of every kind past it.

    1 has a second record, 2 is corrected by a file, 3 withdrawn by it, 4 and 5 are new, 6 is only in the file.
    """

    connection: duckdb.DuckDBPyConnection
    pipeline: Pipeline
    past: serving.Past = field(default_factory=serving.Past)

    def fill(self) -> None:
        """Make events and both logs."""
        stream = [self.row(key, offset, kafka_offset=offset) for offset, key in enumerate((1, 2, 3, 1, 4, 5))]
        batch = [self.row(key, 9, landing=1, file="f", row=number) for number, key in enumerate((2, 3, 6), 1)]
        batch[1]["outcome"] = "filtered"
        self.put(tables.stream_log(self.pipeline), stream)
        self.put(tables.batch_log(self.pipeline), batch)
        united = [{**row, "layer": "stream", "withdrawn": False, "landing": None} for row in stream[:3]]
        self.put(tables.events(self.pipeline), united)

    def row(self, key: int, number: int, **place: Any) -> Row:  # noqa: ANN401
        """An accepted row, every field of it another number."""
        event = self.pipeline.event
        values = {name: 1000 * key + place for place, name in enumerate(self.pipeline.columns)}
        at = {event.key: key, event.time: NOON + timedelta(minutes=key)}
        kafka = {"kafka_partition": 0, "kafka_timestamp": NOON + timedelta(minutes=number)}
        kept = kafka if "kafka_offset" in place else {"landed_at": NOON}
        return {**values, **at, "outcome": "accepted", "landing": 1, **kept, **place}

    def put(self, table: tables.TableShape, rows: list[Row]) -> None:
        """A table of these rows."""
        schema = world.declared_schema(table)
        filled = [{name: row.get(name) for name in schema.names} for row in rows]
        self.connection.register("_tw_arrow", pa.Table.from_pylist(filled, schema=schema))
        self.connection.execute(f"CREATE TABLE {table.name} AS SELECT * FROM _tw_arrow")

    # What `twofold.serving` asks of an engine.

    def stream_log(self, boundary: Boundary) -> str:
        """The whole log."""
        return tables.STREAM_LOG

    def batch_log(self, boundary: Boundary) -> str:
        """The whole log."""
        return tables.BATCH_LOG

    def events(self, days: Collection[date], *, on: bool) -> str:
        """By a condition on the event time."""
        these = serving.on_days(f"`{self.pipeline.event.time}`", days)
        return f"(SELECT * FROM {tables.EVENTS} WHERE {these if on else f'NOT {these}'})"

    dropped = ()

    def only_united(self) -> None:
        """Retention has taken nothing."""

    def near(self, days: Collection[date], tail: str) -> str:
        """All of these days."""
        return self.events(days, on=True)

    def keep(self, name: str, query: str) -> str:
        """A temporary table."""
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE _tw_{name} AS {serving.duckdb(query)}")
        return f"_tw_{name}"

    def days(self, query: str) -> set[date]:
        """The dates of a one-column result."""
        return {row[0] for row in self.connection.execute(serving.duckdb(query)).fetchall()}

    # What is checked.

    def rows(self, query: str) -> list[Row]:
        """A query's rows by column."""
        relation = self.connection.sql(query)
        return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]

    def unite(self) -> None:
        """Make `unified_events`, and see that it is right in every column."""
        self.past = serving.past(self, self.pipeline, BOUNDARY)
        query = serving.duckdb(serving.unify(self, self.pipeline, self.past))
        self.connection.execute(f"CREATE TABLE unified_events AS {query}")
        found = {row[self.pipeline.event.key]: row for row in self.rows("SELECT * FROM unified_events")}
        assert {key: row["layer"] for key, row in found.items()} == ANSWER
        for key, row in found.items():
            wanted = self.row(key, 0)
            assert {name: row[name] for name in self.pipeline.columns} == {
                name: wanted[name] for name in self.pipeline.columns
            }

    def prove(self) -> None:
        """What proves ids and union, and each view in both layers."""
        world = World(PipelineLake(Settings(), self.pipeline), self.connection, Sent("p", None), {})
        assert recomputed.one_row_per_id(world).ok
        assert recomputed.equals_from_scratch(world).ok
        for view in self.pipeline.views.values():
            self._view(world, view)

    def _view(self, world: World, view: View) -> None:
        time, batch, stream = self.pipeline.event.time, tables.batch_view_name(view), tables.stream_view_name(view)
        side = recomputed.ViewTable(view, stream, tables.STREAM_LOG, "")
        self._fold(batch, "unified_events", view)
        recomputed._find_repeated(world, tables.STREAM_LOG)
        first = recomputed._first_of_each_id(world, tables.STREAM_LOG)
        self._fold(stream, f"({first}) AS _tw_first", view)
        self.connection.execute(f"CREATE VIEW {side.source} AS FROM {tables.STREAM_LOG}")

        wanted = sql.folded("unified_events", time, view)
        assert recomputed.compare(world, view, batch, wanted, None, LONG_AGO_US) == recomputed.FoldDifference(
            len(ANSWER) if view.by else 1, 0, 0, ()
        )
        found = Findings("I5")
        recomputed._compare_view(world, side, found)
        assert found.check().ok, found.check()
        if not view.by:
            (row,) = self.rows(f"SELECT * EXCLUDE (window_start, window_end, {tables.VERSION}) FROM {quoted(batch)}")
            latest = self.row(6, 0)
            assert row == {name: latest[measure.duckdb.split('"')[1]] for name, measure in view.measures.items()}
        self._both_layers(view, batch, stream)

    def _fold(self, name: str, source: str, view: View) -> None:
        kept, folded = sql.names([*view.by, *view.measures]), sql.folded(source, self.pipeline.event.time, view)
        self.connection.execute(
            f"""CREATE TABLE {quoted(name)} AS SELECT make_timestamptz({sql.START}) AS window_start,
            make_timestamptz({sql.END}) AS window_end, {kept}, NULL::BIGINT AS {tables.VERSION} FROM ({folded})"""
        )

    def _both_layers(self, view: View, batch: str, stream: str) -> None:
        """The two layers side by side, and as one: batch rows up to the sealed moment, stream rows past it."""
        compared = comparison.side_by_side(view, quoted(batch), quoted(stream), "true", frozenset(view.measures))
        unequal = self.rows(f"SELECT count(*) FILTER (_tw_difference > 0) AS _tw_n FROM ({compared})")
        assert unequal == [{"_tw_n": 2 if view.by else 1}]  # as groups, 3 and 6 are in one layer each
        late = comparison.came_late(self.pipeline, view, tables.STREAM_LOG, "true", None, (1,))
        assert self.connection.execute(late).fetchall() == []
        self._one_answer(view, batch, stream, groups=len(ANSWER) if view.by else 1)

    def _one_answer(self, view: View, batch: str, stream: str, groups: int) -> None:
        """The exact view, its one window folded again, is batch_<view>; the live one has what the batch layer has."""
        moments = [serving.duckdb(query) for query in serving.touched_times(self.pipeline, self.past)]
        self.connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE _tw_touched AS
            SELECT {windows.START}, make_timestamptz({windows.START}) AS window_start
            FROM ({windows.starts(view, moments, [])}) AS _tw_f"""
        )
        assert self.connection.execute(windows.days_of(view, "_tw_touched")).fetchall() == [(NOON_DAY,)]
        fold = windows.fold(view, self.pipeline.event.time, "unified_events", "_tw_touched")
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE _tw_folded AS {fold}")
        for sealed, final in ((None, 0), (NOON + timedelta(days=2), groups)):
            text = serving.unified_view(view, f"`{batch}`", "_tw_touched", "_tw_folded", sealed)
            found = self.rows(f"SELECT count(*) AS _tw_n, count_if(final) AS _tw_f FROM ({serving.duckdb(text)})")
            assert found == [{"_tw_n": groups, "_tw_f": final}]
            for had in (f"`{batch}`", None):
                text = serving.duckdb(serving.live_view(view, had, f"`{stream}`", sealed))
                (row,) = self.rows(
                    f"SELECT count(*) AS _tw_n, count(*) FILTER (layer = 'stream') AS _tw_s FROM ({text})"
                )
                streamed = 0 if had or sealed else groups
                assert row == {"_tw_n": groups if had else streamed, "_tw_s": streamed}
        kept = sql.names([*view.by, *view.measures])
        wrong = f"SELECT {kept} FROM {quoted(batch)} EXCEPT SELECT {kept} FROM _tw_folded"
        assert self.rows(wrong) == []


def lake(folder: Path, document: Row) -> Lake:
    """A definition's tables in the reader's own DuckDB, which notes what it is asked."""
    connection = engine.connect(folder)
    connection.execute("CALL enable_logging('QueryLog')")
    return filled(connection, folder, document)


def filled(connection: duckdb.DuckDBPyConnection, folder: Path, document: Row) -> Lake:
    """A definition's tables in the connection's schema."""
    made = Lake(connection, load_file(written(folder, document)))
    made.fill()
    return made


def asked(made: Lake) -> list[str]:
    """Every statement that ran."""
    query = "SELECT message FROM duckdb_logs WHERE type = 'QueryLog'"
    return [text for (text,) in made.connection.execute(query).fetchall()]


@dataclass(frozen=True)
class Plain:
    """A pipeline whose names are in nobody's way, and what is asked of it."""

    pipeline: Pipeline
    asked: list[str]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plain]:
    """All of its texts."""
    fields = ["declared_a", "declared_b"]
    made = lake(
        tmp_path_factory.mktemp("plain"),
        definition(fields, "declared_id", "declared_time", word_views(fields, 2)),
    )
    made.unite()
    made.prove()
    yield Plain(made.pipeline, asked(made))
    made.connection.close()


@pytest.fixture(scope="module")
def words(plain: Plain) -> list[str]:
    """Every word that may be a field: of SQL, of the texts, and of what they once were."""
    found = {
        *sql_words.SPARK_RESERVED,
        *sql_words.ONCE_USED,
        *sql_words.duckdb_words(),
        *sql_words.of_texts(plain.asked),
    }
    return sorted(word for word in found if not rules.field_fault(word) and "declared" not in word)


def test_every_word_as_field_group_and_measure(words: list[str], tmp_path: Path) -> None:
    """All at once: each answer is what it is under other names."""
    made = lake(tmp_path, definition(words, "declared_id", "declared_time", word_views(words, 120)))
    made.unite()
    made.prove()
    target = tmp_path / "rows.json"
    output.write_json(made.connection.sql("SELECT * FROM unified_events ORDER BY declared_id"), target)
    assert [row["declared_id"] for row in json.loads(target.read_text())] == list(ANSWER)


def test_every_word_as_id_and_as_time(words: list[str], tmp_path: Path) -> None:
    """In turns, so that each meets every text once."""
    half, here, database = len(words) // 2, Settings(), engine.connect(tmp_path)
    database.execute("SET threads = 1")
    for number, (key, time) in enumerate(zip(words[:half], words[half : 2 * half], strict=True)):
        # Of its own are schema and temporary tables; to begin a database takes a quarter of the time.
        connection = database.cursor()
        connection.execute(f"CREATE SCHEMA {engine.DATA}.turn_{number}")
        connection.execute(f"USE {engine.DATA}.turn_{number}")
        made = filled(connection, tmp_path, definition(["n"] if "n" not in (key, time) else [], key, time, {}))
        made.unite()
        world = World(PipelineLake(here, made.pipeline), made.connection, Sent("p", None), {})
        assert recomputed.one_row_per_id(world).ok, (key, time)
        assert recomputed.equals_from_scratch(world).ok, (key, time)
        connection.close()
    database.close()


def test_names_of_generated_sql_have_the_prefix_and_declared_ones_quotes(plain: Plain) -> None:
    """Only the project's own columns and tables go without."""
    declared = {*plain.pipeline.columns, *(name for view in plain.pipeline.views.values() for name in view.measures)}
    logs = (tables.stream_log(plain.pipeline), tables.batch_log(plain.pipeline), tables.events(plain.pipeline))
    own = {name for table in logs for name in table.column_names} | rules.RESERVED_COLUMNS
    own |= {table.name for table in logs} | {"unified_events"}
    made = ("batch_m", "batch_g", "stream_m", "stream_g")
    found = [one for text in plain.asked for one in sqlglot.parse_one(text, read="duckdb").find_all(exp.Identifier)]
    theirs = {one.name for one in found if one.name in declared or one.name.startswith(made)}
    others = {one.name for one in found if one.name not in theirs and one.name not in own}
    assert {one.name for one in found if one.name in theirs and not one.quoted} == set()
    assert {name for name in others if not name.startswith(rules.GENERATED)} == set()


def test_every_word_as_pipeline_and_view(words: list[str], tmp_path: Path) -> None:
    """What no engine has as a schema is accepted, and can be asked for with quotes and without."""
    connection = engine.connect(tmp_path)
    keywords = engine.keywords(connection)
    for word in words:
        document = {**definition([], "id", "at", {word: VIEW}), "name": word}
        pipeline, faults = check_file(written(tmp_path, document))
        if word[0] == "_" or word in rules.RESERVED_PIPELINES | rules.RESERVED_VIEWS:
            assert pipeline is None
            continue
        assert pipeline, faults
        view = statements.unified_view_name(word)
        for database in (engine.PLAN, engine.DATA):
            connection.execute(f"USE {database}.main")
            connection.execute(f"CREATE SCHEMA {quoted(word)}")
            connection.execute(f"CREATE VIEW {statements.qualified(pipeline, view)} AS SELECT '{word}' AS it")
        for text in (
            f"SELECT it FROM {word}.{view}",
            f"SELECT it FROM {word.upper()} . {view}",
            f'FROM "{word}".{view}',
        ):
            assert statements.mentioned(text, {word: pipeline}, None) == {word: {view}}
            usable = statements.with_quotes(text, {word: pipeline}, keywords)
            body = statements.only_reading(connection, usable).body
            assert connection.execute(body).fetchall() == [(word,)], text
        connection.execute(f"USE {engine.DATA}.{quoted(word)}")
        assert connection.execute(f"SELECT it FROM {view}").fetchall() == [(word,)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"fields": ["_tw_x"]}, "a name that does not begin with `_tw_`"),
        ({"views": {"v": {"window": "1 day", "measures": {"_tw_x": "count(*)"}}}}, "does not begin with `_tw_`"),
        ({"views": {"v": {"window": "1 day", "measures": {"window_start_day": "count(*)"}}}}, "`window_start_day`"),
        (
            {
                "fields": ["window_start_day"],
                "views": {"v": {"window": "1 day", "by": ["window_start_day"], "measures": {"n": "count(*)"}}},
            },
            "`window_start_day`",
        ),
        ({"views": {"_tw_v": VIEW}}, "starting with a letter"),
        ({"name": "_tw_p"}, "starting with a letter"),
        ({"name": "temp"}, "not a schema of DuckDB or Spark"),
        ({"fields": ["__row_id"]}, "that Twofold's own columns do not use"),
    ],
)
def test_names_that_are_refused(where: Row, expected: str, tmp_path: Path) -> None:
    """Each with what is expected."""
    document = definition(where.get("fields", []), "id", "at", where.get("views", {}))
    pipeline, faults = check_file(written(tmp_path, {**document, "name": where.get("name", "p")}))
    assert pipeline is None
    assert [expected in fault.expected for fault in faults] == [True], faults


def test_a_word_without_its_quotes_is_told_so(tmp_path: Path) -> None:
    """In queries and in expressions, each with the quotes of its dialect."""
    pipeline = load_file(written(tmp_path, definition(["order", "n"], "id", "at", {})))
    connection = engine.connect(tmp_path)
    text = "SELECT order FROM p.unified_events ORDER BY n"
    hint = statements.unquoted_hint(text, [pipeline], engine.keywords(connection))
    with pytest.raises(QueryError) as refused:
        statements.only_reading(connection, text, hint)
    assert str(refused.value).endswith('as a name, a word of SQL goes in double quotes: "order"')
    assert not statements.unquoted_hint('SELECT "order" FROM x ORDER BY n', [pipeline], engine.keywords(connection))

    columns = {"union": FieldType("int"), "n": FieldType("int")}
    (problem,) = check_filter("union > 1 and n > 2", columns).problems
    assert problem.hint == "a field called like a word of SQL goes in backticks: `union`"
    assert check_filter("`union` > 1 and n > 2", columns).expression


@pytest.fixture
def catalog(tmp_path: Path) -> InMemoryCatalog:
    """A catalog of real tables on the disk."""
    return InMemoryCatalog("names", warehouse=str(tmp_path / "warehouse"))


def test_the_days_of_a_table_are_called_as_no_field_may_be(catalog: InMemoryCatalog, tmp_path: Path) -> None:
    """Incident: a field `at_day` beside the event time `at` stopped every job, as did `kafka_timestamp_day`."""
    fields = ["at_day", "kafka_timestamp_day", "landed_at_day"]
    pipeline = load_file(written(tmp_path, definition(fields, "id", "at", {})))
    for table in schemas.ensure_tables(catalog, pipeline).values():
        assert [field.name for field in table.spec().fields] == ["_tw_day"]
    assert output.day_column(pipeline) == "at_day_"
