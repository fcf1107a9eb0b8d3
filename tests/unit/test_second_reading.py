"""The proof's own reading of records and files agrees with the contract, whatever is sent."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from tests.unit.test_contract_agreement import pipelines
from tests.unit.test_contract_agreement import texts as hostile
from twofold import readers, tables
from twofold.contract import judge as judge_module
from twofold.contract import kafka_records
from twofold.contract.event_keys import with_key
from twofold.contract.judge import Judge
from twofold.contract.records import JsonRecords
from twofold.definition.load import load_file
from twofold.definition.model import Files, Pipeline
from twofold.definition.names import KEY
from twofold.inbox import LocalFolder
from twofold.ledger import Erased
from twofold.proof import file_records, recount
from twofold.proof.expected import Expected, Expecting
from twofold.proof.findings import Findings
from twofold.proof.values import Tally, alike, arrival
from twofold.readers import csv_rows, json_texts, texts
from twofold.schema_registry import Registered
from twofold.settings import Settings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def no_schema(_number: int) -> Registered:
    raise AssertionError("JSON needs none")


def differences(pipeline: Pipeline, rows: list[dict[str, Any]], wanted: list[Expected]) -> list[str]:
    """What the proof would say of the rows of one record."""
    found = []
    if len(rows) != len(wanted):
        return [f"{len(rows)} rows, {len(wanted)} expected"]
    for row, one in zip(rows, wanted, strict=True):
        assert not one.untold, one
        if (row["outcome"] == "rejected") != bool(one.faults):
            found.append(f"{row['outcome']} ({row['reason']}): {one}")
        elif not one.faults and not one.holds_nothing:
            found += [f"{n}: {row[n]!r}, not {value!r}" for n, value in one.values.items() if not alike(row[n], value)]
        if row.get("element", 0) != (one.element or 0):
            found.append(f"element {row['element']}, not {one.element}")
    return found


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(pipelines(), hostile())
def test_hostile_records_are_read_alike(pipeline: Pipeline, text: bytes | None) -> None:
    rows = Judge(pipeline).judge(JsonRecords([text], [1]), NOW).rows.to_pylist()
    assert not differences(pipeline, rows, Expecting(pipeline, no_schema).of_kafka(text, None, {}, NOW, NOW)), text


DECLARED = """name: p
topic: {name: p, format: FORMAT}
lateness: 1 minute
files: FILES
event:
  id: ID
  time: at
  max_future: 1 day
  EACH
  fields:
    id: {type: string, required: true, from: "BEFOREuser.id"}
    at: {type: timestamp, required: true, from: ["@timestamp"], format: epoch_ms}
    n: {type: long, from: "items[1].n", min: 0}
    d: {type: "decimal(5,2)", from: total}
    day: {type: date, format: "%d.%m.%Y"}
    raw: {type: json, from: items}
    word: {type: string, default: "-", max_length: 5}
    sure: {type: boolean}
    key: {type: string, from: {key: true}}
    trace: {type: int, from: {header: trace-id}}
"""


def declared(folder: Path, **words: str) -> Pipeline:
    text = DECLARED
    usual = {"FORMAT": "json", "FILES": "{}", "ID": "id", "EACH": "", "BEFORE": ""}
    for word, value in {**usual, **words}.items():
        text = text.replace(word, value)
    path = folder / "p.yaml"
    path.write_text(text)
    return load_file(path)


AT = '"@timestamp": 1772323200007'
RECORDS = [
    f'{{"user": {{"id": "a"}}, {AT}, "items": [1, {{"n": 7}}], "total": "1.50", "day": "28.02.2026", "sure": "TRUE"}}',
    f'{{"user": {{"id": 1.50}}, {AT}, "items": [ ], "total": null, "word": ""}}',
    f'{{"user": {{"id": "x", "id": "y"}}, {AT}, "items": {{}}}}',
    f'{{"user": "a", {AT}}}',
    f'{{"user": {{"id": "a"}}, {AT}, "items": [1, {{"n": -1}}]}}',
    f'{{"user": {{"id": "a"}}, {AT}, "items": [1, 2]}}',
    f'{{"user": {{"id": "a"}}, {AT}, "total": 1.005}}',
    f'{{"user": {{"id": "a"}}, {AT}, "day": "29.02.2026"}}',
    f'{{"user": {{"id": "a"}}, {AT}, "word": "longer"}}',
    '{"user": {"id": "a"}, "@timestamp": 1772323200007000}',
    '{"user": {"id": "a"}, "@timestamp": 1772409600007.5}',
    '{"user": {"id": "a"}, "@timestamp": "1772323200007.0005"}',
    '{"user": null}',
    "{",
    "",
]


@pytest.mark.parametrize("wire", ["json", "confluent-json"])
def test_paths_formats_and_what_lies_beside_are_read_alike(tmp_path: Path, wire: str) -> None:
    pipeline = declared(tmp_path, FORMAT=wire)
    prefix = b"" if wire == "json" else b"\0\0\0\0\7"
    values = [*(prefix + text.encode() for text in RECORDS), RECORDS[0].encode(), None]
    keys = [b"k", None, b"\xff", *[b""] * (len(values) - 3)]
    traces = [[("trace-id", b"1"), ("trace-id", b"02")], [("trace-id", b"x")], [], *[None] * (len(values) - 3)]
    batch = pa.RecordBatch.from_pydict({
        "value": pa.array(values, pa.binary()),
        "key": pa.array(keys, pa.binary()),
        "headers": [[{"key": k, "value": v} for k, v in some or ()] for some in traces],
        "timestamp": pa.array([NOW] * len(values), pa.timestamp("us", "UTC")),
    })  # fmt: skip
    rows = Judge(pipeline).judge(kafka_records.of(pipeline, batch, no_schema), NOW).rows.to_pylist()
    expecting = Expecting(pipeline, no_schema)
    assert {row["outcome"] for row in rows} == {"accepted", "rejected"}
    for row, value, key, some in zip(rows, values, keys, traces, strict=True):
        headers = {f"header {name}": one for name, one in some or ()}
        assert not differences(pipeline, [row], expecting.of_kafka(value, key, headers, NOW, NOW)), value
    assert rows[0] | {"d": Decimal("1.50"), "day": date(2026, 2, 28), "key": "k", "trace": 2, "n": 7} == rows[0]


@pytest.mark.parametrize("at_ms", [1_772_323_200_007, 0, -1, -5_000, 253_402_300_800_000, 1_772_323_200_007_000])
def test_time_stamps_that_a_sender_chose_are_read_alike(tmp_path: Path, at_ms: int) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "name: p\ntopic: {name: p, managed: false}\nlateness: 1 minute\n"
        "event: {id: none, time: arrival, fields: {v: {type: int}}}\n"
    )
    pipeline = load_file(path)
    stamps = pa.array([at_ms * 1000], pa.int64()).cast(pa.timestamp("us", "UTC"))
    batch = pa.RecordBatch.from_pydict({"value": pa.array([b'{"v": 1}'], pa.binary()), "timestamp": stamps})
    records = kafka_records.of(pipeline, batch, lambda _: Registered("JSON", "{}"))
    rows = Judge(pipeline).judge(records, NOW).rows.to_pylist()
    wanted = Expecting(pipeline, no_schema).of_kafka(b'{"v": 1}', None, {}, arrival(at_ms, NOW), NOW)
    assert not differences(pipeline, rows, wanted)


def test_elements_are_read_alike(tmp_path: Path) -> None:
    pipeline = declared(tmp_path, EACH="each: orders", BEFORE="$.", ID="none")
    head = '"user": {"id": "u"}, "orders": '
    values = [
        f'{{{head}[{{{AT}}}, {{{AT}, "total": "x"}}, 7, {{{AT}, "items": [0, {{"n": 2}}]}}]}}',
        f"{{{head}[]}}",
        f"{{{head}null}}",
        f'{{{head}{{"a": 1}}}}',
        '{"orders": [{}]}',
        "{}",
        "oops",
    ]
    records = JsonRecords([value.encode() for value in values], range(1, len(values) + 1))
    judged = Judge(pipeline).judge(records, NOW)
    assert judged.parents is not None
    parents = judged.parents.to_pylist()
    lying = judged.rows.append_column("file", pa.repeat("f", len(parents))).append_column("row", judged.parents)
    rows = with_key(pipeline, lying).to_pylist()
    expecting = Expecting(pipeline, no_schema)
    for index, value in enumerate(values):
        own = [row for row, parent in zip(rows, parents, strict=True) if parent == index]
        wanted = expecting.of_text(value.encode(), NOW)
        assert not differences(pipeline, own, wanted), value
        for row, one in zip(own, wanted, strict=True):
            if row["outcome"] == "accepted":
                assert row[KEY] == expecting.key(one.values, "file", "f", index, one.element)
    assert [row["outcome"] for row in rows][:4] == ["accepted", "rejected", "rejected", "accepted"]


def test_records_that_were_not_judged_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good ones are counted, as a fault of ours may reject any number of them; that is no violation."""
    pipeline = declared(tmp_path)

    def failing(*_: object) -> list[pa.Array]:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(judge_module, "kept_rules", failing)
    values = [RECORDS[0].encode(), b"{"]
    rows = Judge(pipeline).judge(JsonRecords(values, [1, 2]), NOW).rows.to_pylist()
    assert {row["reason_kind"] for row in rows} == {"not_judged"}
    world: Any = SimpleNamespace(
        pipeline=pipeline, lake=SimpleNamespace(settings=Settings()), defined_since=lambda _: 0
    )
    tally, found = Tally(world, tables.BATCH_LOG), Findings("I4")
    for number, (row, value) in enumerate(zip(rows, values, strict=True), 1):
        kept = {**row, "landing": 1, "digest": hashlib.sha256(value).hexdigest()}
        tally.compare(f"f:{number}", [kept], Expecting(pipeline, no_schema).of_text(value, NOW), (), value)
    tally.report(found)
    check = found.check()
    said = (
        "not judged though nothing is wrong: 1 row of batch_log, report it: f:1: not judged: RuntimeError: a fault of"
    )
    assert said in check.text
    assert check.numbers["batch_log_rows_not_judged"] == 1
    assert check.state == "holds"


CONTROLS = "".join(map(chr, [*range(32), 127, 128, 0x2028, 0x2029, 0xFEFF]))
ID_TEXTS = ['a"\\\n,', "", "é", CONTROLS, '\\"', "\\u0041", "/", "\U0001f600\U0010ffff", "7", '["a",7]', "null"]


@pytest.mark.parametrize("fields", [["id"], ["n"], ["id", "n"], ["n", "id"], ["id", "second"]])
def test_ids_are_worked_out_apart(tmp_path: Path, fields: list[str]) -> None:
    """What was erased is found by the hash of the id: so the text of it is the same, whatever stands in it."""
    pipeline = declared(
        tmp_path,
        ID=f"[{', '.join(fields)}]",
        **{", min: 0": ", required: true", "raw: {type: json, from: items}": "second: {type: string, required: true}"},
    )
    values = [
        json.dumps(
            {"user": {"id": text}, "second": text, "@timestamp": 1772323200007, "items": [0, {"n": number}]}
        ).encode()
        for text, number in zip(ID_TEXTS, [-5, 0, 7, 2**62, *range(20)], strict=False)
    ]
    rows = Judge(pipeline).judge(JsonRecords(values, range(len(values))), NOW).rows
    assert set(rows["outcome"].to_pylist()) == {tables.ACCEPTED}
    expecting, key = Expecting(pipeline, no_schema), pipeline.event.key
    keys = with_key(pipeline, rows)[key].to_pylist()
    salted = Erased(key, "salt")
    erased = replace(salted, hashes=frozenset(salted.hash_of(str(one)) for one in keys[1:]))
    world: Any = SimpleNamespace(
        pipeline=pipeline, lake=SimpleNamespace(settings=Settings()), defined_since=lambda _: 0, erased=erased,
        is_erased=erased.__contains__,
    )  # fmt: skip
    tally = Tally(world, tables.STREAM_LOG)
    blank = {**dict.fromkeys(pipeline.columns), "outcome": tables.ERASED, "digest": None, "landing": 1}
    for number, (one, value) in enumerate(zip(keys, values, strict=True)):
        wanted = expecting.of_kafka(value, None, {}, NOW, NOW)
        assert expecting.key(wanted[0].values) == str(one)
        tally.compare(f"t[0]@{number}", [blank], wanted, ("kafka", 0, number), value)
    assert tally.wrong == {"records that are blank though nobody erased them": ["t[0]@0"]}


def in_file(folder: Path, name: str, content: bytes, pipeline: Pipeline) -> list[str]:
    """What the proof would say of a file's rows, as the product's readers and contract make them."""
    (folder / "inbox").mkdir(exist_ok=True)
    (folder / "inbox" / name).write_bytes(content)
    expecting = Expecting(pipeline, no_schema)
    second: dict[int, list[Expected]] = {}
    payloads: dict[int, bytes] = {}
    for record in file_records.read(LocalFolder(folder / "inbox"), name, pipeline, [(1, 1000)]):
        if record.text is not None:
            second[record.number] = expecting.of_text(record.text, NOW)
        else:
            faulty = Expected(faults=(record.fault,))
            second[record.number] = [faulty if record.fault else expecting.of_cells(record.cells, NOW)]
        if record.payload is not None:
            payloads[record.number] = record.payload
    assert bool(payloads) != name.endswith(".parquet")
    found = []
    first: dict[int, list[dict[str, Any]]] = {}
    for records in readers.read(io.BytesIO(content), name, pipeline):
        judged = Judge(pipeline).judge(records, NOW)
        numbers = judged.of_records(pa.array(records.numbers, pa.int64())).to_pylist()
        for number, row in zip(numbers, judged.rows.to_pylist(), strict=True):
            first.setdefault(number, []).append(row)
    assert first.keys() == second.keys()
    for number, rows in first.items():
        found += [f"{number}: {one}" for one in differences(pipeline, rows, second[number])]
        kept = {row["payload"] for row in rows if row["outcome"] == "rejected" and number in payloads}
        found += [f"{number}: its bytes {one!r}, not {payloads[number]!r}" for one in kept - {payloads.get(number)}]
    assert first
    return found


def with_fields(folder: Path, fields: str, more: str = "event:") -> Pipeline:
    """Of events with `at` and these fields; `more` is what its file has besides, and ends within its `event`."""
    path = folder / "p.yaml"
    path.write_text(
        f"name: p\ntopic: p\nlateness: 1 minute\n{more}\n  id: none\n  time: at\n  fields:\n"
        f"    at: {{type: timestamp, required: true}}\n    {fields}\n"
    )
    return load_file(path)


def judged(folder: Path, name: str, content: bytes, fields: str, more: str = "event:") -> list[dict[str, Any]]:
    """The rows of a file by a pipeline `with_fields`; the proof reads the same."""
    pipeline = with_fields(folder, fields, more)
    assert not in_file(folder, name, content, pipeline)
    return [
        row
        for records in readers.read(io.BytesIO(content), name, pipeline)
        for row in Judge(pipeline).judge(records, NOW).rows.to_pylist()
    ]


CSV = """user.id;@timestamp;total;day;word;sure;items
a;1772323200007;1,50;28.02.2026;;ja; null
"b;""c""\n";"1772323200007";-1,5;;"";nein;"[1,
2]"
c;1772323200007;1.50;;-;;
;1772323200007;;;;;
d;soon;;;;;
e;1772323200007;;;5" pipe;;
f;1772323200007;;;;
g;1772323200007;;;"x"y;;
h;1772323200007;1,555;31.02.2026;toolong;vielleicht;
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_csv_is_read_alike(tmp_path: Path, encoding: str) -> None:
    files = '{decimal: ",", null_values: ["-"], true_values: [ja], false_values: [nein], delimiter: ";"}'
    pipeline = declared(tmp_path, FILES=files)
    for line_end in ("\n", "\r\n", "\r"):
        content = CSV.replace("\n", line_end).encode(encoding)
        assert not in_file(tmp_path, "x.csv", content, pipeline)
        assert not in_file(tmp_path, "x.csv.gz", gzip.compress(content), pipeline)
    assert not in_file(tmp_path, "bad.csv", "user.id;@timestamp;word\né;1772323200007;\n".encode("latin-1"), pipeline)


NINES, NOUGHTS = "9" * 1500, "0" * 1500
NUMBERS = [f"1e{NOUGHTS}1", f"-1E-{NOUGHTS}1", f"1e+{NOUGHTS}", f"0e{NINES}", f"-0.0e-{NINES}", f"1e{NINES}",
           f"-1e-{NINES}", f"1e-{NINES}", "1e-1999999999999999998", "12e999999999999999999", "0.1e1000000000000000000",
           f"1.{NINES}", f"-1.{NOUGHTS}1", f"1.{NOUGHTS}", f"1{NOUGHTS}e-1500", f"0.{NOUGHTS}1e1501", f"-{NOUGHTS}1",
           f"1000.{NINES}", f"1000000.{NINES}", f"-1000.{NOUGHTS}1", f"1{NOUGHTS}", f"1999.{NOUGHTS}1", "1e", "1e+",
           "1e-", "1e0x1", "-1.5e-0000000000000000000000000"]  # fmt: skip
MOMENTS = [f"timestamp, format: epoch_{unit}" for unit in ("s", "ms", "us", "ns")]


@pytest.mark.parametrize("kind", ["int", "long", "double", '"decimal(10,2)"', *MOMENTS, "date, format: epoch_s"])
def test_numbers_of_any_length_are_read_alike(tmp_path: Path, kind: str) -> None:
    pipeline, at = with_fields(tmp_path, f"v: {{type: {kind}}}"), '"at": "2026-02-28T00:00:00Z"'
    lines = [f'{{{at}, "v": {one}}}' for text in NUMBERS for one in (text, f'"{text}"')]
    assert not in_file(tmp_path, "x.jsonl", "\n".join(lines).encode(), pipeline)
    assert not in_file(tmp_path, "x.csv", "\n2026-02-28,".join(["at,v", *NUMBERS]).encode(), pipeline)


def test_csv_without_a_header_is_read_alike(tmp_path: Path) -> None:
    pipeline = declared(tmp_path, FILES='{delimiter: "|", header: [user.id, skipped, "@timestamp"]}')
    assert not in_file(tmp_path, "x.csv", b"a|1|1772323200007\n\n|2|1772323200007\n  \nb\n", pipeline)


def test_json_files_are_read_alike(tmp_path: Path) -> None:
    pipeline = declared(tmp_path)
    lines = [*RECORDS[:-1], '{"user": {"id": "\\ud800"}}', '\u2028{"a": 1}']
    for line_end in ("\n", "\r\n", "\r", "\n\n \t\n"):
        content = line_end.join(lines).encode()
        assert not in_file(tmp_path, "x.jsonl", content + b"\n\xff{}", pipeline)
    for text in ("[" + ",\n ".join(RECORDS[:-2]) + "]", '[{"a": "],["}, 7, [1, {"b": 2}], {"c": oops}, "x"]\n'):
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            assert not in_file(tmp_path, "x.json", text.encode(encoding), pipeline)


@pytest.mark.parametrize(
    ("row", "most", "files", "fits"),
    [
        (b"2026-03-01," + b"N" * 40, 49, f"null_values: [{'N' * 40}]", False),
        (b"2026-03-01," + b"N" * 40, 50, f"null_values: [{'N' * 40}]", True),
        (b"2026-03-01,j", 11, "true_values: [j]", True),
        (b"2026-03-01,j", 10, "true_values: [j]", False),
        (b'2026-03-01,"j"', 11, "true_values: [j]", True),
        (b"2026-03-01,", 10, "taken: keep", True),
        (b"2026-03-01,0", 10, "decimal: ','", False),
    ],
)
def test_the_size_of_a_row_of_csv_is_that_of_its_cells_as_they_stand_there(
    tmp_path: Path, row: bytes, most: int, files: str, fits: bool
) -> None:
    fields = "v: {type: boolean}\n    w: {type: boolean, from: v}"
    more = f"files: {{{files}}}\nevent:\n  max_bytes: {most} B"
    [found] = judged(tmp_path, "x.csv", b"at,v\n" + row + b"\n", fields, more)
    assert found["reason_kind"] == (None if fits else "too_large")


@pytest.mark.parametrize("half", ["\udcc3\udca9", "\udc80", "\ud83d", "\udfff\ud800", "\udcff"])
@pytest.mark.parametrize("name", ["x.json", "x.csv"])
def test_halves_of_pairs_in_utf16_are_no_text(tmp_path: Path, name: str, half: str) -> None:
    text = f'{{"at":"2026-03-01","v":"a{half}"}}\n' if name == "x.json" else f"at,v\n2026-03-01,a{half}\n"
    for encoding, mark in (("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff")):
        content = mark + text.encode(encoding, "surrogatepass")
        [row] = judged(tmp_path, name, content, "v: {type: string}", "event:\n  max_bytes: 60 B")
        assert row["reason_kind"] == "encoding"


def test_records_after_one_that_is_too_deep_are_read_alike(tmp_path: Path) -> None:
    deep, deeper = ("[" * levels + "]" * levels for levels in (1001, 110_000))
    assert not in_file(
        tmp_path, "x.json", f"[{deep}, {RECORDS[0]}, {deeper}, {RECORDS[1]}]".encode(), declared(tmp_path)
    )


LENGTHS = [
    ("x.json", '{"a": 1}\n{"@"}\n{"b": 2}\n', 3), ("x.json", '\r{"@"}\r\n\r\n{"b": 2}', 2), ("x.json", "@", 1),
    ("x.json", '[{"a": 1},{"@": 1},{"b": 2}]', 3), ("x.json", '\n[ [{"@": 1}]\r\n\t,{"b": 2} ]\n', 2),
    ("x.json", '[1,"@"]', 2), ("x.json", "[@,2]", 2), ("x.json", "[1, @\n]", 2),
    ("x.csv", "id,a\n1,x\n2,@\n3,y\n", 3), ("x.csv", "id,a\r\n1,@\r\n3,y\r\n", 2), ("x.csv", "id,a\n1,@", 1),
    ("x.csv", 'id,a\r1,"\r\n@\r\n"\r3,y', 2), ("x.csv", 'id,a\n1,x"@\n3,y\n', 2), ("x.csv", "id,@\r\n1,x\n", 1),
    ("x.csv", "id,a\n1,x,@\n\n", 1), ("x.csv", 'id,a\n1,"\n@"x\n3,y\n', 3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "form", "records"), LENGTHS)
@pytest.mark.parametrize("letter", ["y", "€"])
def test_the_longest_record_is_the_same_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str, records: int, letter: str
) -> None:
    text, found = form.replace("@", letter * 30), set()
    for limit in range(5, 130):
        monkeypatch.setattr(recount, "LONGEST", limit)
        for block, data in ((10, text.encode()), (1000, text.encode("utf-16"))):
            (tmp_path / name).write_bytes(data)
            blocks = texts.blocks(texts.WatchedStream(io.BytesIO(data)), name[2:], block_bytes=block)
            try:
                if name == "x.csv":
                    first = sum(map(len, csv_rows.read(blocks, {"id"}, max_record_bytes=limit)))
                else:
                    first = sum(map(len, json_texts.read(blocks, max_record_bytes=limit)))
            except readers.SetAside:
                first = -1
            try:
                second = recount.records(LocalFolder(tmp_path), name, {"id"}, Files())
            except recount.Irregular:
                second = -1
            assert first == second, (limit, block)
            found.add(first)
    assert found == {-1, records}


@pytest.mark.parametrize(
    ("kept", "value"),
    [
        (1, 2),
        (None, 0),
        ("1.5", "1.50"),
        (Decimal("1.5"), 1.5),
        (True, 1),
        (NOW, NOW.replace(microsecond=1)),
        (0, False),
    ],
)
def test_what_is_not_the_same_is_not_alike(kept: object, value: object) -> None:
    assert not alike(kept, value)
    assert alike(value, value)
