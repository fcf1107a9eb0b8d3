"""Events as they come from elsewhere, through both layers: nested, with times as numbers, several ids or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyiceberg.expressions import BooleanExpression
from pyspark.sql import SparkSession

from tests.at_work import Work
from tests.lake import EqualTo
from twofold import tables
from twofold.definition.model import Pipeline
from twofold.proof.prover import prove
from twofold.settings import Settings

Define = Callable[..., Pipeline]
MARCH_MS = 1_772_323_200_000
"""2026-03-01 in milliseconds since 1970."""


def declared(define: Define, event: dict[str, Any], measures: dict[str, str], by: list[str], **more: Any) -> Pipeline:  # noqa: ANN401
    """A pipeline of this event and one view of a minute; nothing of the usual definition is left."""
    nothing = dict.fromkeys(("id", "kind", "value", "at", "hidden"))
    fields = {**nothing, **event.pop("fields")}
    view = {"window": "1 minute", "by": by, "measures": measures}
    return define(event={**event, "fields": fields}, views={"by_kind": None, "v": view}, filter=None, **more)


def batch(work: Work, name: str, content: bytes) -> None:
    """Put a file into the inbox and take it."""
    work.put(name, content)
    work.take()


def click(session: object, number: int, second: int, total: object, **more: object) -> bytes:
    """A nested record."""
    payload = {"session": {"id": session}, "seq": number, "total": total, **more}
    return json.dumps({"@timestamp": MARCH_MS + 1000 * second, "payload": payload}).encode()


CLICKS: dict[str, Any] = {
    "id": ["session", "number"],
    "time": "happened_at",
    "fields": {
        "session": {"type": "string", "required": True, "from": "payload.session.id"},
        "number": {"type": "long", "required": True, "from": "payload.seq"},
        "happened_at": {"type": "timestamp", "required": True, "from": ["@timestamp"], "format": "epoch_ms"},
        "country": {"type": "string", "from": "payload.geo.country", "default": "nowhere"},
        "items": {"type": "json", "from": "payload.items"},
        "amount": {"type": "decimal(12,2)", "from": "payload.total"},
        "trace": {"type": "string", "from": {"header": "trace-id"}},
        "sender": {"type": "string", "from": {"key": True}},
    },
}


def test_several_ids_are_one_identity_in_both_layers(stack: Settings, spark: SparkSession, define: Define) -> None:
    measures = {"clicks": "count(*)", "revenue": "sum(amount)"}
    work = Work(spark, stack, declared(define, {**CLICKS, "fields": dict(CLICKS["fields"])}, measures, ["country"]))
    items = {"items": [{"sku": 'A"1', "qty": 1.5}], "geo": {"country": "CH"}}
    work.send_values(click("s,1", 2, 0, 12.5, **items), click("s", 1, 1, 1), key=b"k", headers={"trace-id": b"t"})
    work.send_values(
        click("s,1", 2, 0, 12.5, **items), click("s", 2, 2, 3), click(None, 3, 2, 3), click("s", 4, 3, 0.001)
    )
    work.drain()
    answers = "SELECT session, number, country, items, amount, trace, sender, epoch_ms(happened_at) FROM unified_events"
    expected: list[tuple[Any, ...]] = [
        ("s", 1, "nowhere", None, "1.00", "t", "k", MARCH_MS + 1000),
        ("s", 2, "nowhere", None, "3.00", None, None, MARCH_MS + 2000),
        ("s,1", 2, "CH", '[{"sku": "A\\"1", "qty": 1.5}]', "12.50", "t", "k", MARCH_MS),
    ]
    assert rows(work, answers) == expected
    assert work.query("SELECT outcome, count(*) FROM stream_log GROUP BY 1 ORDER BY 1") == [
        ("accepted", 4),
        ("rejected", 2),
    ]
    work.holds(behind=True, proved=True)
    work.union()
    # A file corrects one of them, and brings a new one.
    batch(work, "clicks.jsonl", click("s", 2, 2, 30) + b"\n" + click("s", 5, 70, 7) + b"\n")
    expected[1] = ("s", 2, "nowhere", None, "30.00", None, None, MARCH_MS + 2000)
    expected.insert(2, ("s", 5, "nowhere", None, "7.00", None, None, MARCH_MS + 70_000))
    for _ in range(2):
        assert rows(work, answers) == expected
        assert rows(work, "SELECT country, clicks, revenue FROM unified_v") == [
            ("CH", 1, "12.50"),
            ("nowhere", 1, "7.00"),
            ("nowhere", 2, "31.00"),
        ]
        work.union()
    assert work.query("SELECT json_extract_string(items, '$[0].sku') FROM unified_events WHERE country = 'CH'") == [
        ('A"1',)
    ]
    work.holds(proved=True)


LOGS: dict[str, Any] = {
    "id": "none",
    "time": "at",
    "fields": {
        "host": {"type": "string", "required": True},
        "at": {"type": "timestamp", "required": True, "format": "%d/%b/%Y:%H:%M:%S %z"},
        "status": {"type": "int", "required": True, "min": 100, "max": 599},
        "bytes": {"type": "long"},
    },
}
LINE = b"h1\t01/Mar/2026:00:00:00 +0000\t200\t512\n"


def test_without_an_id_every_record_counts_once(stack: Settings, spark: SparkSession, define: Define) -> None:
    names = ["host", "at", "status", "bytes"]
    # A file is put a second time under its name: the proof needs what it had said before.
    files = {"delimiter": "\t", "header": names, "null_values": ["-"], "taken": "archive"}
    measures = {"requests": "count(*)", "volume": "sum(bytes)"}
    event = {**LOGS, "fields": dict(LOGS["fields"])}
    work = Work(spark, stack, declared(define, event, measures, ["status"], files=files))
    record = json.dumps({"host": "h1", "at": "01/Mar/2026:00:00:00 +0000", "status": 200, "bytes": 512}).encode()
    work.send_values(record, record)
    work.drain()
    batch(
        work,
        "access.csv",
        2 * LINE + b"h2\t01/Mar/2026:02:00:01 +0200\t304\t-\n-\t01/Mar/2026:00:00:02 +0000\t200\t1\n",
    )
    answer = "SELECT status, requests, volume FROM unified_v"
    for _ in range(2):
        assert rows(work, answer) == [(200, 4, 2048), (304, 1, None)]
        work.union()
    # The same rows again are the same events, changed ones replace those of their number; a repeated run adds nothing.
    batch(work, "access.csv", LINE + LINE.replace(b"512", b"100") + b"h2\t01/Mar/2026:02:00:01 +0200\t304\t-\n")
    for _ in range(2):
        assert rows(work, answer) == [(200, 4, 1636), (304, 1, None)]
        work.take()
        work.union()
    work.holds(proved=True)


def test_events_without_a_time_have_that_of_their_arrival(stack: Settings, spark: SparkSession, define: Define) -> None:
    event = {"id": "name", "time": "arrival", "fields": {"name": {"type": "string", "required": True}}}
    work = Work(spark, stack, declared(define, event, {"seen": "count(*)"}, []))
    work.send_values(b'{"name": "a"}', b'{"name": "a"}', b'{"name": "b"}')
    work.drain()
    batch(work, "more.jsonl", b'{"name": "c"}\n')
    for _ in range(2):
        assert rows(work, "SELECT name, arrived_at = kafka_timestamp FROM unified_events") == [
            ("a", True),
            ("b", True),
            ("c", None),
        ]
        assert work.query("SELECT sum(seen) FROM unified_v") == [(3,)]
        work.union()
    work.holds(proved=True)


ORDERS: dict[str, Any] = {
    "id": ["order", "line"],
    "time": "at",
    "each": "lines",
    "fields": {
        "order": {"type": "string", "required": True, "from": "$.id"},
        "line": {"type": "int", "required": True, "from": "no"},
        "at": {"type": "timestamp", "required": True, "from": "$.at", "format": "epoch_ms"},
        "sku": {"type": "string", "required": True},
    },
}


def order(number: str, *lines: object) -> bytes:
    """A record with an array of events."""
    return json.dumps({"id": number, "at": MARCH_MS, "lines": list(lines)}).encode()


def test_every_element_of_an_array_is_an_event(stack: Settings, spark: SparkSession, define: Define) -> None:
    event = {**ORDERS, "fields": dict(ORDERS["fields"])}
    work = Work(spark, stack, declared(define, event, {"lines": "count(*)"}, ["sku"]))
    work.send_values(
        order("o1", {"no": 1, "sku": "a"}, {"no": 2, "sku": "b"}, {"no": 2, "sku": "again"}),
        order("o2"),
        order("o3", {"no": 1, "sku": "a"}, {"no": "x", "sku": "b"}),
        b"{",
        order("o1", {"no": 1, "sku": "a"}),
    )
    work.drain()
    placed = [
        (0, 1, "accepted"), (0, 2, "accepted"), (0, 3, "accepted"), (1, 0, "filtered"),
        (2, 1, "accepted"), (2, 2, "rejected"), (3, 0, "rejected"), (4, 1, "accepted"),
    ]  # fmt: skip
    assert work.query("SELECT kafka_offset, element, outcome FROM stream_log ORDER BY ALL") == placed
    batch(work, "orders.jsonl", order("o3", {"no": 1, "sku": "corrected"}, {"no": 3, "sku": "a"}) + b"\n")
    for _ in range(2):
        assert rows(work, 'SELECT "order", line, sku FROM unified_events') == [
            ("o1", 1, "a"),
            ("o1", 2, "b"),
            ("o3", 1, "corrected"),
            ("o3", 3, "a"),
        ]
        assert rows(work, "SELECT sku, lines FROM unified_v") == [("a", 2), ("b", 1), ("corrected", 1)]
        work.union()
    work.holds(proved=True)

    # Mutants: an element that is lost, one that is there twice, and one with another's value.
    name, log = work.pipeline.topic.name, work.lake.table(tables.STREAM_LOG)
    whole = log.metadata.current_snapshot_id
    second = log.scan(row_filter=at_element(0, 2)).to_arrow()
    assert whole is not None and second.num_rows == 1
    for rest, invariant, offender in (
        (second.slice(0, 0), "I2", f"{name}[0]@0: elements 1, 3"),
        (pa.concat_tables([second, second]), "I2", f"{name}[0]@0: 2 times"),
        (
            second.set_column(second.schema.get_field_index("sku"), "sku", [["c"]]),
            "I4",
            f"{name}[0]@0/2: sku 'c', sent 'b'",
        ),
        (
            second.set_column(second.schema.get_field_index("_tw_id"), "_tw_id", [['["o1",9]']]),
            "I4",
            f"{name}[0]@0/2: _tw_id",
        ),
    ):
        log.delete(at_element(0, 2))
        log.append(rest.cast(second.schema))
        [found] = [one for one in prove(work.lake, 0, lambda line: None).checks if one.id == invariant]
        assert any(offender in one for one in found.offenders), found
        log.manage_snapshots().set_current_snapshot(snapshot_id=whole).commit()
        log.refresh()


def at_element(offset: int, element: int) -> BooleanExpression:
    return EqualTo("kafka_offset", offset) & EqualTo("element", element)


def rows(work: Work, query: str) -> list[tuple[Any, ...]]:
    """In order, decimals as text."""
    return sorted(
        (
            tuple(format(value, "f") if hasattr(value, "as_tuple") else value for value in row)
            for row in work.query(query)
        ),
        key=str,
    )
