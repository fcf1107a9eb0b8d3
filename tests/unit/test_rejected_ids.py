"""The ids of rejected records: read alike where they land, in a log, and by the proof; an erased one lands blank."""

from __future__ import annotations

import gzip
import io
import json
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_jobs.erase import Wanted
from spark_jobs.rejected_ids import RejectedIds
from spark_jobs.tasks import of_file, of_kafka
from tests.conftest import write_definition
from tests.unit.test_wire_formats import behind, body
from twofold.contract.judge import Judge
from twofold.definition.model import Pipeline
from twofold.ledger import Erased
from twofold.proof.expected import Expecting
from twofold.readers import read
from twofold.schema_registry import Registered, UnknownSchema

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = '"at": "2026-03-01T12:00:00Z"'
LONG = {"type": "long", "required": True, "max_length": None}
COMPOSITE = {"id": ["tenant", "id"], "fields": {"tenant": {"type": "long", "required": True}}}
EACH = {"each": "items", "fields": {"at": {"from": "$.at"}}}
SCHEMA = {
    "type": "record",
    "name": "R",
    "fields": [{"name": name, "type": kind} for name, kind in (("id", "string"), ("value", "string"))],
}
ITEMS = {
    "type": "record",
    "name": "R",
    "fields": [{"name": "items", "type": {"type": "array", "items": {**SCHEMA, "name": "E"}}}],
}
HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))


def schemas(number: int) -> Registered:
    if number > 2:
        raise UnknownSchema
    return Registered("AVRO", json.dumps({1: SCHEMA, 2: ITEMS}[number]))


@dataclass(frozen=True)
class Case:
    """Records that are rejected, and the ids of each."""

    ids: list[set[str | None]]
    event: dict[str, Any] = field(default_factory=dict)
    kafka: list[bytes | None] = field(default_factory=list)
    form: str = "json"
    key: bytes | None = None
    header: bytes | None = None
    file: str = ""
    content: bytes = b""
    kept: list[set[str | None]] | None = None
    """Those that what the log keeps of them tells, where that is less."""
    files: dict[str, Any] = field(default_factory=dict)


def parquet(**columns: list[Any]) -> bytes:
    made = io.BytesIO()
    pq.write_table(pa.table(columns), made)
    return made.getvalue()


BAD = f'{AT}, "kind": "a", "value": "x"'
LARGE = {"max_bytes": "1 KiB"}
CASES = {
    "json": Case([{"a"}, {"b"}], kafka=[f'{{"id": "a", {BAD}}}'.encode(), f'{{"id": "\\u0062", {BAD}}}'.encode()]),
    "of no length allowed": Case([{"a" * 300}], kafka=[f'{{"id": "{"a" * 300}", {BAD}}}'.encode()]),
    "a number": Case(
        [{"7"}, {None}], {"fields": {"id": LONG}}, [f'{{"id": {n}, {BAD}}}'.encode() for n in ("7.0", "7.5")]
    ),
    "unread": Case([{None}] * 4, kafka=[b'{"id": "a"', b'\xff{"id": "a"}', b"[]", b'{"value": "id"}']),
    "large": Case([{"a"}], LARGE, [f'{{"id": "a", "note": "{"y" * 2000}", {BAD}}}'.encode()]),
    "several": Case(
        [{'[7,"a\\"\n\u2028"]'}, {None}],
        COMPOSITE,
        [f'{{"id": "a\\"\\n\u2028", "tenant": 7, {BAD}}}'.encode(), f'{{"id": "a", {BAD}}}'.encode()],
    ),
    "elements": Case(
        [{"a", "b", None}] * 3 + [{None}],
        EACH,
        [f'{{{AT}, "items": [{{"id": "a", "value": "x"}}, 7, {{"id": "b", "value": "x"}}]}}'.encode(), b'{"items": 7}'],
    ),
    "confluent-json": Case(
        [{"a"}, {None}], form="confluent-json", kafka=[behind(9, f'{{"id": "a", {BAD}}}'.encode()), b'{"id": "a"}']
    ),
    "avro": Case(
        [{"a"}, {None}, {None}],
        form="avro",
        kafka=[behind(1, body(SCHEMA, {"id": "a", "value": "x"})), behind(9, b"\2a\2x"), behind(1, b"\2a")],
    ),
    "large avro": Case([{"a"}], LARGE, [behind(1, body(SCHEMA, {"id": "a", "value": "y" * 2000}))], "avro"),
    "elements in avro": Case(
        [{"a", "b"}] * 2,
        EACH,
        [behind(2, body(ITEMS, {"items": [{"id": "a", "value": "x"}, {"id": "b", "value": "x"}]}))],
        "avro",
    ),
    "the key of Kafka": Case(
        [{"a"}, {"a"}],
        {"fields": {"id": {"from": {"key": True}}}},
        [f"{{{BAD}}}".encode(), b"oops"],
        key=b"a",
        kept=[{None}] * 2,
    ),
    "a header": Case([{"a"}], {"fields": {"id": {"from": {"header": "h"}}}}, [b"{}"], header=b"a", kept=[{None}]),
    "json file": Case([{"a"}, {None}], file="f.json.gz", content=gzip.compress(b'{"id": "a", "value": "x"}\noops')),
    "elements in a file": Case(
        [{"a", "b"}] * 2,
        EACH,
        file="f.json",
        content=b'{"items": [{"id": "a", "value": "x"}, {"id": "b", "value": 1}]}',
    ),
    "csv": Case(
        [{"a"}, {"b"}, {None}, {None}],
        file="f.csv",
        content=b'id,at,value\na,2026-03-01,x\n"b",oops,1\n,2026-03-01,x\na,b,c,d,e\n',
    ),
    "csv of a path": Case(
        [{"7"}], {"fields": {"id": LONG | {"from": "user.id"}}}, file="f.csv", content=b"user.id,value\n007,x\n"
    ),
    "csv that is no UTF-8": Case([{"a"}], file="f.csv", content=b"id,value,kind\na,x,\xff\n", kept=[{None}]),
    "large csv": Case([{"a"}], LARGE, file="f.csv", content=b"id,value,kind\na,x," + b"y" * 2000),
    "parquet": Case([{"a"}, {None}], file="f.parquet", content=parquet(id=["a", None], value=["x", "x"])),
    "parquet of another spelling": Case(
        [{"4711.5"}, {"4711"}],
        file="f.parquet",
        content=parquet(id=[Decimal("4711.50"), Decimal("4711")], value=["x"] * 2),
    ),
    "parquet of large doubles": Case([{"1e+16"}], file="f.parquet", content=parquet(id=[1e16], value=["x"])),
    "parquet of moments": Case(
        [{"2026-03-01T12:00:00Z"}], file="f.parquet", content=parquet(id=[NOON], value=["x"], kind=[NOON])
    ),
    "parquet of structs": Case(
        [{'{"a":1.50,"t":"2026-03-01T12:00:00Z"}'}],
        file="f.parquet",
        content=parquet(id=[{"a": Decimal("1.50"), "t": NOON}], value=["x"]),
    ),
    "parquet of a path to another spelling": Case(
        [{"4711"}],
        {"fields": {"id": {"from": "user[1].id"}, "kind": {"from": "user"}}},
        file="f.parquet",
        content=parquet(user=[[None, {"id": Decimal("4711.00"), "t": NOON}]], value=["x"]),
    ),
    "parquet of a path": Case(
        [{"7"}],
        {"fields": {"id": LONG | {"from": "user.id"}}},
        file="f.parquet",
        content=parquet(user=[{"id": 7}], value=["x"]),
    ),
    "without ids": Case([{"kafka/0/5"}, {"kafka/0/6"}], {"id": "none"}, [b"oops", f"{{{BAD}}}".encode()]),
    "a file without ids": Case([{"file/f.csv/1"}], {"id": "none"}, file="f.csv", content=b"value\nx\n"),
}


def landed(case: Case, pipeline: Pipeline, erased: Erased) -> pa.RecordBatch:
    """The rows of a log that the records become."""
    judge = Judge(pipeline)
    if case.file:
        source = read(io.BytesIO(case.content), case.file, pipeline)
        made = (rows for records in source for _, rows in of_file(judge, erased, records, (1, case.file, NOON)))
        return pa.concat_batches(list(made))
    count = len(case.kafka)
    batch = pa.RecordBatch.from_pydict(
        {
            "value": pa.array(case.kafka, pa.binary()),
            "key": pa.array([case.key] * count, pa.binary()),
            "headers": pa.array([[{"key": "h", "value": case.header}]] * count, HEADERS),
            "partition": pa.array([0] * count),
            "offset": pa.array(range(5, 5 + count)),
            "timestamp": pa.array([NOON] * count),
        }
    )
    return pa.concat_batches([rows for _, rows in of_kafka(judge, erased, batch, pa.array([1] * count), schemas)])


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Case, Pipeline]:
    one: Case = CASES[request.param]
    return one, write_definition(tmp_path, event=one.event, topic={"format": one.form}, files=one.files or None)


every = pytest.mark.parametrize("case", CASES, indirect=True)


def hashed(pipeline: Pipeline, *ids: str) -> Erased:
    salted = Erased(pipeline.event.key, "salt")
    return replace(salted, hashes=frozenset(map(salted.hash_of, ids)))


@every
def test_a_rejected_record_of_an_erased_id_lands_blank(case: tuple[Case, Pipeline]) -> None:
    records, pipeline = case
    before = landed(records, pipeline, Erased())
    assert before["outcome"].to_pylist() == ["rejected"] * len(records.ids)
    assert landed(records, pipeline, hashed(pipeline, "nobody")) == before
    for wanted in {one for ids in records.ids for one in ids if one is not None}:
        rows = landed(records, pipeline, hashed(pipeline, wanted))
        assert rows["outcome"].to_pylist() == ["erased" if wanted in ids else "rejected" for ids in records.ids]
        assert [row["payload"] is None and row["reason"] is None for row in rows.to_pylist()] == [
            wanted in ids for ids in records.ids
        ]


@every
def test_what_the_log_keeps_tells_as_much(case: tuple[Case, Pipeline]) -> None:
    """Else `erase` would leave what the proof finds, or the proof not see what is left."""
    records, pipeline = case
    rows, expected = landed(records, pipeline, Erased()), records.kept or records.ids
    ids = RejectedIds(pipeline, schemas)
    assert [*ids.of_rows(rows, lambda some: ids.of_payloads(rows, some)).values()] == expected
    for wanted in {one for some in expected for one in some if one is not None}:
        those, _ = Wanted(pipeline, frozenset([wanted]), schemas).told(rows)
        # Where none can be read, the word decides.
        told = [
            (bool(one), wanted in some) for one, some in zip(those.to_pylist(), expected, strict=True) if some != {None}
        ]
        assert all(held == has_it for held, has_it in told)
    if pipeline.event.id:
        kept = Expecting(replace(pipeline, event=replace(pipeline.event, max_bytes=sys.maxsize)), schemas)
        assert [kept.kept_ids(one, records.file or None) for one in rows["payload"].to_pylist()] == expected
