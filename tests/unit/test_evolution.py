"""A changed definition against real tables: what they follow, what waits, what is refused; and data from before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table

from spark_jobs import streaming_job
from tests.conftest import write_definition
from tests.lake import LocalLake
from twofold import commits, evolution, schemas, serving, table_state, tables
from twofold.catalog import LakeCatalog
from twofold.definition.model import Pipeline
from twofold.errors import IncompatibleDefinition
from twofold.evolution import Difference
from twofold.proof import world
from twofold.proof.sent import Sent
from twofold.reader import engine, pruning
from twofold.reader.pinned import iceberg_schema, pin
from twofold.reader.unified import DuckDBEngine
from twofold.settings import Settings
from twofold.table_files import Place, Writer
from twofold.table_state import Boundary, Landed

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PRICE = {"price": {"type": "decimal(9,2)"}, "text": {"type": "string"}}
Define = Callable[..., Pipeline]

FOLLOWS, WAITS, REFUSED = evolution.FOLLOWS, evolution.WAITS, evolution.REFUSED
FIELDS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "a new field": ({"extra": {"type": "int"}}, FOLLOWS, "extra", "is new"),
    "one of another place": ({"extra": {"type": "int", "from": "value"}}, FOLLOWS, "extra", "is new"),
    "int to long": ({"value": {"type": "long"}}, FOLLOWS, "value.type", "was int, is now long"),
    "more digits": (
        {"price": {"type": "decimal(12,2)"}},
        FOLLOWS,
        "price.type",
        "was decimal(9, 2), is now decimal(12",
    ),
    "text to json": ({"text": {"type": "json"}}, WAITS, "text.type", 'was "string", is now "json"'),
    "dropped": ({"price": None}, FOLLOWS, "price", "is not declared"),
    "tightened": ({"value": {"max": 5}}, WAITS, "value.max", "was 1000, is now 5"),
    "loosened": ({"value": {"max": None}}, WAITS, "value.max", "was 1000, is no more"),
    "required": ({"value": {"required": True}}, WAITS, "value.required", "was false, is now true"),
    "new and required": (
        {"extra": {"type": "int", "required": True}},
        REFUSED,
        "extra",
        "a new field must be optional",
    ),
    "another type": ({"value": {"type": "double"}}, REFUSED, "value.type", "was int, is now double"),
    "narrower": ({"price": {"type": "decimal(8,2)"}}, REFUSED, "price.type", "was decimal(9, 2), is now decimal(8,2)"),
    "more scale": (
        {"price": {"type": "decimal(12,3)"}},
        REFUSED,
        "price.type",
        "was decimal(9, 2), is now decimal(12,3",
    ),
}
"""Changes of fields: the change, and what is said of it."""
OUTCOMES_WAIT = ("int to long", "more digits", "dropped")
"""Changes that the tables follow, but not the outcomes of rows landed before: those get a line of their own."""
SECTIONS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "filter": ({"filter": None}, WAITS, "filter", "was "),
    "format": ({"topic": {"format": "confluent-json"}}, WAITS, "topic.format", 'is now "confluent-json"'),
    "horizon": ({"event": {"id_horizon": "9 days"}}, FOLLOWS, "event.id_horizon", "was 604800.0, is now 777600.0"),
    "id": ({"event": {"id": ["id", "kind"]}}, REFUSED, "event.id", "was 'id', is now 'id,kind'"),
    "no id": ({"event": {"id": "none"}}, REFUSED, "event.id", "was 'id', is now 'none'"),
    "each": ({"event": {"each": "items"}}, REFUSED, "event.each", "was '', is now 'items'"),
    "managed": ({"topic": {"managed": False, "partitions": None}}, REFUSED, "topic.managed", "was 'true', is now"),
}


@pytest.fixture
def define(tmp_path: Path) -> Define:
    """A definition of one name, with a price and a text."""

    def made(fields: dict[str, Any] | None = None, **sections: Any) -> Pipeline:  # noqa: ANN401
        event = {**sections.pop("event", {}), "fields": {**PRICE, **(fields or {})}}
        for name, rules in PRICE.items():
            event["fields"][name] = None if event["fields"][name] is None else {**rules, **event["fields"][name]}
        return write_definition(tmp_path, name="p", event=event, **sections)

    return made


def versions(lake: LakeCatalog) -> list[str]:
    return [lake.load_table(("p", name)).metadata_location for name in ("stream_log", "batch_log", "events")]


@pytest.mark.parametrize("change", [*FIELDS, *SECTIONS])
def test_each_difference_is_listed_and_followed_or_refused(lake: LakeCatalog, define: Define, change: str) -> None:
    before = define()
    assert schemas.differences(lake, before) is None
    schemas.ensure_tables(lake, before)
    assert differences(lake, before) == []
    what, effect, where, said = (FIELDS | SECTIONS)[change]
    changed = define(what) if change in FIELDS else define(**what)
    found, *more = differences(lake, changed)
    assert (found.effect, found.where.removeprefix("event.fields.")) == (effect, where)
    assert found.what.startswith(said) and found.then
    assert [(one.effect, one.where) for one in more] == ([(WAITS, found.where)] if change in OUTCOMES_WAIT else [])
    assert all("reland p" in one.then for one in more)

    was = versions(lake)
    if effect == REFUSED:
        with pytest.raises(IncompatibleDefinition) as refused:
            schemas.ensure_tables(lake, changed)
        assert str(found) in refused.value.message
        assert versions(lake) == was
        return
    foreseen = schemas.followed(lake.load_table(("p", "stream_log")), tables.stream_log(changed)).schema()
    assert versions(lake) == was
    assert schemas.ensure_tables(lake, changed)["stream_log"].schema() == foreseen
    # What was followed is no difference any more, but for a column that is there and not declared.
    assert differences(lake, changed) == ([found] if change == "dropped" else [])


def test_a_field_that_is_declared_again_has_values_of_before(lake: LakeCatalog, define: Define) -> None:
    """Its column is there, whatever its values meant; also where it was left out by mistake, and is required."""
    schemas.ensure_tables(lake, define({"extra": {"type": "int", "from": "cents"}}))
    again = {"type": "int", "from": "stock"}
    # Nothing was written without it: it is changed.
    assert [(one.effect, one.where) for one in differences(lake, define({"extra": again}))] == [
        (WAITS, "event.fields.extra.from")
    ]
    schemas.ensure_tables(lake, define())
    for declared in (define({"extra": {**again, "required": True}}), define({"extra": again})):
        (waits,) = differences(lake, declared)
        assert (waits.effect, waits.where, waits.what) == (WAITS, "event.fields.extra", "is declared again")
        assert waits.then.startswith("rows landed before keep its former values, until")
    schemas.ensure_tables(lake, declared)
    assert differences(lake, declared) == []


def test_a_lake_from_before_the_first_release_is_refused(lake: LakeCatalog, define: Define) -> None:
    log = schemas.ensure_tables(lake, define())[tables.STREAM_LOG]
    with log.transaction() as transaction:
        transaction.remove_properties(evolution.EACH)
    was = versions(lake)
    with pytest.raises(IncompatibleDefinition, match=r"p: stream_log was made before version 0\.2\.0") as refused:
        schemas.ensure_tables(lake, define())
    assert "under a new pipeline name" in refused.value.remedy and versions(lake) == was


def test_a_lake_of_version_0_2_0_goes_on(lake: LakeCatalog, define: Define) -> None:
    """It does not say of which topic its log is; the next job adds that."""
    log = landed(schemas.ensure_tables(lake, define())[tables.STREAM_LOG], 0, value=1)
    with log.transaction() as transaction:
        transaction.remove_properties(evolution.TOPIC)
    assert differences(lake, define()) == []
    assert schemas.ensure_tables(lake, define())[tables.STREAM_LOG].properties[evolution.TOPIC] == "p"


def test_what_is_refused_changes_no_topic(lake: LakeCatalog, define: Define, tmp_path: Path) -> None:
    """The tables are asked before Kafka, which nothing undoes; here is no broker."""
    schemas.ensure_tables(lake, define())
    refused = define({"extra": {"type": "int", "required": True}}, topic={"partitions": 9})
    with pytest.raises(IncompatibleDefinition):
        streaming_job.check(LocalLake(Settings(home=tmp_path), refused, lake))


def test_another_topic_is_refused_once_the_stream_has_records(lake: LakeCatalog, define: Define) -> None:
    elsewhere = define(topic={"name": "elsewhere"})
    schemas.ensure_tables(lake, define())
    log = schemas.ensure_tables(lake, elsewhere)[tables.STREAM_LOG]
    landed(log, 0, value=1)
    (found,) = differences(lake, define())
    assert (found.effect, found.where) == (REFUSED, "topic.name")
    was = versions(lake)
    with pytest.raises(IncompatibleDefinition, match="was 'elsewhere', is now 'p'"):
        schemas.ensure_tables(lake, define())
    assert versions(lake) == was and differences(lake, elsewhere) == []


def differences(lake: LakeCatalog, pipeline: Pipeline) -> list[Difference]:
    """All but those of the views, which are not made here."""
    return [one for one in schemas.differences(lake, pipeline) or () if not one.where.startswith("views.")]


def test_views_are_compared_too(lake: LakeCatalog, define: Define) -> None:
    measures = {"highest": "max(value)", "paid": "sum(price)"}
    most = {"window": "1 hour", "by": ["value"], "measures": measures}
    views = {"by_kind": None, "most": most}
    before = define(views=views)
    schemas.ensure_tables(lake, before)
    assert {str(one) for one in schemas.differences(lake, before) or ()} == {
        f"views.most: {name} is not there yet; it is filled from all that was landed"
        for name in ("batch_most", "stream_most")
    }
    for name in ("batch_most", "stream_most"):
        schemas.ensure_view(lake, before, before.views["most"], name)
    wider = define({"value": {"type": "long"}, "price": {"type": "decimal(12,2)"}}, views=views)
    found = [one for one in schemas.differences(lake, wider) or () if one.where == "views.most"]
    assert {one.effect for one in found} == {evolution.FOLLOWS} and len(found) == 6
    for name in ("batch_most", "stream_most"):
        made = schemas.ensure_view(lake, wider, wider.views["most"], name)
        kinds = {field.name: str(field.field_type) for field in made.schema().fields}
        assert (kinds["value"], kinds["highest"], kinds["paid"]) == ("long", "long", "decimal(22, 2)")
    other = define(views={**views, "most": {**most, "window": "2 hours"}})
    refused, _ = (one for one in schemas.differences(lake, other) or () if one.where == "views.most")
    assert (refused.effect, "twofold rebuild p" in refused.then) == (evolution.REFUSED, True)


def test_another_start_is_listed_once_the_stream_has_begun(lake: LakeCatalog, define: Define) -> None:
    later = define(topic={"start": "latest"})
    log = schemas.ensure_tables(lake, define())[tables.STREAM_LOG]
    assert differences(lake, later) == []
    commits.set_properties(log, table_state.as_property(Landed(later.name, offsets={0: 5})), [])
    (found,) = differences(lake, later)
    assert (found.effect, found.where) == (evolution.IGNORED, "topic.start")
    assert differences(lake, define()) == []


# ---- data from before ----


def landed(table: Table, number: int, **columns: Any) -> Table:  # noqa: ANN401
    """One accepted record at offset `number`."""
    row = {"id": f"id-{number}", "at": NOON, "kind": "a", "outcome": "accepted", "kafka_partition": 0}
    row |= {"kafka_offset": number, "kafka_timestamp": NOON, "landing": number + 1, **columns}
    place = Place.of(table)
    with Writer(place) as writer:
        names = [field for field in place.arrow if field.name in row]
        writer.write(pa.RecordBatch.from_pylist([row], pa.schema(names)))
        files = writer.close()
    return commits.append(table, files, table_state.encode(Landed("p", number + 1, offsets={0: number + 1})))


def test_files_of_before_are_read_with_the_types_of_today(lake: LakeCatalog, define: Define) -> None:
    """By DuckDB itself, through pyarrow as where the store is S3, by the proof; and with conditions."""
    log = schemas.ensure_tables(lake, define())[tables.STREAM_LOG]
    landed(log, 0, value=7, price=Decimal("1.50"))
    wider = define(
        {"value": {"type": "long", "max": 1 << 40}, "price": {"type": "decimal(12,2)"}, "extra": {"type": "int"}}
    )
    log = schemas.ensure_tables(lake, wider)[tables.STREAM_LOG]
    landed(log, 1, value=1 << 33, price=Decimal("1234567890.25"), extra=5)

    expected = [(0, 7, Decimal("1.50"), None), (1, 1 << 33, Decimal("1234567890.25"), 5)]
    pinned = pin(lake, "p", tables.STREAM_LOG, tables.stream_log(wider))
    names = "kafka_offset, value, price, extra"
    connection = engine.plain(None)
    native = engine.query_of(connection, "_tw_remote", pinned.columns, {}, pinned.all_files)
    assert connection.execute(f"SELECT {names} FROM ({native}) ORDER BY 1").fetchall() == expected
    files = [file.file_path.removeprefix("file://") for file in pinned.all_files]
    schema = schema_to_pyarrow(iceberg_schema(pinned.columns), include_field_ids=False)
    connection.register("_tw_arrow", ds.dataset(files, schema=schema, format="parquet"))
    assert connection.execute(f"SELECT {names} FROM _tw_arrow ORDER BY 1").fetchall() == expected
    assert connection.execute("SELECT kafka_offset FROM _tw_arrow WHERE value < 10 AND price < 2").fetchall() == [(0,)]

    narrowed = pinned.narrowed(pinned.all_files, pruning.compared("value", ">", 1 << 32))
    assert len(narrowed) == 1
    assert len(pinned.narrowed(pinned.all_files, pruning.compared("value", "<", 10))) == 1

    proof = duckdb.connect()
    pin_ = world.pinned(tables.STREAM_LOG, lake.load_table(("p", tables.STREAM_LOG)))
    proved = world.World(LocalLake(Settings(), wider, lake), proof, Sent("p", None), {})
    proved.register("log", pin_)
    assert proof.execute(f"SELECT {names} FROM log ORDER BY 1").fetchall() == expected


def test_a_log_knows_since_which_landing_today_s_definition_holds(lake: LakeCatalog, define: Define) -> None:
    """Also where a job of the old definition lands while the new one's starts: that landing is of the old one."""
    log = schemas.ensure_tables(lake, define())[tables.STREAM_LOG]
    assert table_state.defined_since(log.properties) == 1
    stale = landed(log, 0)
    looked = lake.load_table(stale.name())
    landed(stale, 1)
    with pytest.raises(CommitFailedException):
        commits.set_properties(looked, {"a": "b"})

    tighter = define({"value": {"max": 5}})
    log = schemas.ensure_tables(lake, tighter)[tables.STREAM_LOG]
    assert table_state.defined_since(log.properties) == 3
    assert schemas.ensure_tables(lake, tighter)[tables.STREAM_LOG].metadata_location == log.metadata_location
    (waits,) = differences(lake, tighter)
    assert (waits.effect, waits.where) == (WAITS, "event")
    assert waits.what == "stream_log has rows of an earlier definition, landed before landing 3"
    # Back to the old one: the rows of before are by it, but nothing says so.
    assert table_state.defined_since(schemas.ensure_tables(lake, define())[tables.STREAM_LOG].properties) == 3


def test_a_dropped_column_goes_on_to_events(lake: LakeCatalog, define: Define) -> None:
    """It is not in `unified_events`; should it be declared again, `events` has of each row what the log has."""
    log = schemas.ensure_tables(lake, define())[tables.STREAM_LOG]
    landed(log, 0, price=Decimal("1.50"))
    dropped = define({"price": None})
    schemas.ensure_tables(lake, dropped)
    shapes = (tables.events(dropped), tables.stream_log(dropped), tables.batch_log(dropped))
    events, stream, batch = (pin(lake, "p", shape.name, shape) for shape in shapes)
    connection = engine.connect(Path("/nonexistent"))

    def read(pinned: Any, files: Any) -> str:  # noqa: ANN401
        name = f"_tw_{pinned.name.replace('.', '_')}_{len(files)}"
        query = engine.query_of(connection, f"{name}_remote", pinned.columns, {}, files)
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")
        return f"temp.main.{name}"

    steps = DuckDBEngine.over(connection, dropped, (events, stream, batch), read)
    assert steps.dropped == ("price",)
    assert connection.execute(f"SELECT id, price FROM {steps.past.tail}").fetchall() == [("id-0", Decimal("1.50"))]
    shown = connection.execute(steps.unified()).description
    assert "price" not in {column[0] for column in shown or ()}
    rewritten = serving.duckdb(serving.rewritten(dropped, f"{steps.past.tail}", "events_none", None, steps.dropped))
    assert '"price"' in rewritten


def test_events_of_rows_that_were_replaced_since_say_nothing() -> None:
    edge = Boundary("p", "t", {0: 9}, 3, relanded=(1, 2))
    for stream, batch, is_of in ((1, 2, True), (2, 2, False), (1, 3, False), (0, 0, False)):
        assert edge.is_of(Landed("p", relanded=stream), Landed("p", relanded=batch)) is is_of
