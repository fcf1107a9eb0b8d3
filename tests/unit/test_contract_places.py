"""Where values are found and how they are written: paths, formats, defaults, several events in a record."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twofold import readers
from twofold.contract.event_keys import with_key
from twofold.contract.judge import Judge
from twofold.contract.records import JsonRecords
from twofold.definition.load import check_file, load_file
from twofold.definition.model import Pipeline

NOW = datetime(2026, 3, 2, tzinfo=UTC)
AT = '"at": "2026-03-01T00:00:00Z"'


@pytest.fixture
def pipeline(tmp_path: Path) -> Any:  # noqa: ANN401
    """A pipeline whose field `v` is declared as asked: `pipeline("type: long, from: a.b", "each: items")`."""

    def written(v: str, event: str = "", files: str = "", time: str = "at", number: str = "none") -> Pipeline:
        path = tmp_path / "p.yaml"
        path.write_text(
            f"""name: p
topic: p
lateness: 1 minute
{f"files: {files}" if files else ""}
event:
  id: {number}
  time: {time}
  {event}
  fields:
    id: {{type: string, required: {"true" if "id" in number else "false"}{', from: "$.id"' if event else ""}}}
    at: {{type: timestamp, required: {"false" if time != "at" else "true"}{', from: "$.at"' if event else ""}}}
    v: {{{v}}}
"""
        )
        return load_file(path)

    return written


def judged(pipeline: Pipeline, *texts: str | bytes, **beside: list[bytes | None]) -> list[dict[str, Any]]:
    """The rows of some JSON texts; the child process says the same."""
    values = [text if isinstance(text, bytes) else text.encode() for text in texts]
    arrays = {name: pa.array(found, pa.binary()) for name, found in beside.items()}
    records = JsonRecords(values, range(1, len(values) + 1), arrays)
    rows: list[dict[str, Any]] = Judge(pipeline).judge(records, NOW).rows.to_pylist()
    return rows


def outcome(row: dict[str, Any]) -> Any:  # noqa: ANN401
    """What became of `v`: its value, or the reason."""
    return row["reason"] or row["v"]


PATHS = [
    ("type: string, from: a.b", '"a": {"b": "x"}', "x"),
    ("type: string, from: a.b", '"a": {"b": {"c":  1.50}}', '{"c":  1.50}'),
    ("type: string, from: a.b", '"a": {}', None),
    ("type: string, from: a.b", '"a": null', None),
    ("type: string, from: a.b", '"b": 1', None),
    ("type: string, from: a.b", '"a": {"b": 1}, "a": {"c": 2}', None),
    ("type: string, from: a.b", '"a": {"c": 2}, "a": {"b": "last"}', "last"),
    ("type: string, from: a.b", '"a": {"b": 1, "\\u0062": 2}', "2"),
    ("type: string, from: a.b", '"a": "text"', 'v (a.b): a is not an object: "text"'),
    ("type: string, from: a.b", '"a": [1]', "v (a.b): a is not an object: [1]"),
    ("type: string, from: a.b, required: true", '"a": {}', "missing v (a.b)"),
    ("type: long, from: a.b.c", '"a": {"b": {"c": "7"}}', 7),
    ("type: long, from: a.b.c", '"a": {"b": {"c": 7.5}}', "v (a.b.c) is not a long: 7.5"),
    ('type: string, from: ["@timestamp"]', '"@timestamp": "x"', "x"),
    ('type: string, from: ["a.b", "c[0]"]', '"a.b": {"c[0]": "x"}', "x"),
    ('type: string, from: "a[1].b"', '"a": [{"b": "no"}, {"b": "x"}]', "x"),
    ('type: string, from: "a[1].b"', '"a": [{"b": "no"}]', None),
    ('type: string, from: "a[1].b"', '"a": [7, null]', None),
    ('type: string, from: "a[1].b"', '"a": {"b": 1}', 'v (a[1].b): a is not an array: {"b": 1}'),
    ('type: string, from: "a[0].b"', '"a": [7]', "v (a[0].b): a[0] is not an object: 7"),
    ('type: string, from: "a[0][1]"', '"a": [["x", "y"]]', "y"),
    ("type: json, from: a", '"a": { "n" : 1.50, "s": "é" }', '{ "n" : 1.50, "s": "é" }'),
    ("type: json, from: a", '"a": "text"', '"text"'),
    ("type: json, from: a", '"a": null', None),
    ("type: json, from: $", '"a": 1', f'{{"id": "1", {AT}, "a": 1}}'),
    ("type: string, from: def.class", '"def": {"class": "words of Python"}', "words of Python"),
    ("type: string, default: none", '"x": 1', "none"),
    ("type: string, default: none", '"v": null', "none"),
    ("type: string, default: none", '"v": ""', ""),
    ('type: "decimal(5,2)", default: 0', '"x": 1', Decimal("0.00")),
    ("type: long, default: 5, min: 1", '"v": 0', "v out of range: 0 < 1"),
    ("type: boolean, default: true", '"x": 1', True),
]


@pytest.mark.parametrize(("declared", "record", "expected"), PATHS)
def test_paths(pipeline: Any, declared: str, record: str, expected: object) -> None:  # noqa: ANN401
    (row,) = judged(pipeline(declared), f'{{"id": "1", {AT}, {record}}}')
    assert outcome(row) == expected


MS = 1_772_323_200_000
MARCH = datetime(2026, 3, 1, tzinfo=UTC)
FORMATS = [
    ("timestamp", "epoch_ms", MS, MARCH),
    ("timestamp", "epoch_ms", f'"{MS}"', MARCH),
    ("timestamp", "epoch_ms", f"{MS + 7}.0005", MARCH.replace(microsecond=7000)),
    ("timestamp", "epoch_ms", f"{MS + 7}.5", MARCH.replace(microsecond=7500)),
    ("timestamp", "epoch_ms", -1, datetime(1969, 12, 31, 23, 59, 59, 999000, UTC)),
    ("timestamp", "epoch_ms", -0.0005, datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
    ("timestamp", "epoch_ms", MS * 1000, None),
    ("timestamp", "epoch_ms", f"1{'0' * 400}", None),
    ("timestamp", "epoch_ms", "1e999999999", None),
    ("timestamp", "epoch_s", "1." + "9" * 1500, datetime(1970, 1, 1, 0, 0, 1, 999999, UTC)),
    ("timestamp", "epoch_s", "-1." + "0" * 1100 + "1", datetime(1969, 12, 31, 23, 59, 58, 999999, UTC)),
    ("timestamp", "epoch_ns", "1999." + "9" * 1500, datetime(1970, 1, 1, 0, 0, 0, 1, UTC)),
    ("timestamp", "epoch_us", "-1e-99999999999999999999", datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
    ("timestamp", "epoch_ms", '"2026-03-01"', None),
    ("timestamp", "epoch_ms", "true", None),
    ("timestamp", "epoch_s", "1772323200.123456789", MARCH.replace(microsecond=123456)),
    ("timestamp", "epoch_s", "1.7723232e9", MARCH),
    ("timestamp", "epoch_s", 253_402_300_799, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ("timestamp", "epoch_s", 253_402_300_800, None),
    ("timestamp", "epoch_us", MS * 1000 + 1, MARCH.replace(microsecond=1)),
    ("timestamp", "epoch_ns", MS * 10**6 + 1999, MARCH.replace(microsecond=1)),
    ("timestamp", "epoch_ns", -1, datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
    ("timestamp", "%d/%b/%Y:%H:%M:%S %z", '"01/Mar/2026:02:00:00 +0200"', MARCH),
    ("timestamp", "%d/%b/%Y:%H:%M:%S %z", '"31/Feb/2026:02:00:00 +0200"', None),
    ("timestamp", "%d/%b/%Y:%H:%M:%S %z", '"01/Mar/2026:02:00:00"', None),
    ("timestamp", "%d.%m.%Y %H:%M", '"01.03.2026 00:00"', MARCH),
    ("timestamp", "%d.%m.%Y %H:%M", '"٠١.03.2026 00:00"', None),
    ("timestamp", "%d.%m.%Y %H:%M", "1.03", None),
    ("date", "%d.%m.%Y", '"01.03.2026"', date(2026, 3, 1)),
    ("date", "epoch_ms", MS, date(2026, 3, 1)),
    ("date", "epoch_ms", MS + 1, None),
]


@pytest.mark.parametrize(("kind", "form", "value", "expected"), FORMATS)
def test_formats(pipeline: Any, kind: str, form: str, value: object, expected: object) -> None:  # noqa: ANN401
    declared = pipeline(f'type: {kind}, format: "{form}"')
    sound = '"id": "2", "at": "2026-03-01T00:00:00Z"'
    row, _ = judged(declared, f'{{"id": "1", {AT}, "v": {value}}}', f"{{{sound}}}")
    if expected is None:
        assert row["reason"].startswith(f"v is not a {kind}: ")
    else:
        assert outcome(row) == expected


def test_a_wrong_unit_is_a_fault_of_the_event_time(pipeline: Any) -> None:  # noqa: ANN401
    declared = pipeline("type: timestamp, required: true, format: epoch_ms, min: '2000-01-01'", time="v")
    too_small, too_large, right = judged(declared, *(f'{{"v": {value}}}' for value in (MS // 1000, MS * 1000, MS)))
    assert too_small["reason"] == "v out of range: 1970-01-21T12:18:43.200Z < 2000-01-01T00:00:00Z".replace(
        ".200", ".200000"
    )
    assert too_large["reason_kind"] == "wrong_type"
    assert right["v"] == MARCH


def test_what_lies_beside_a_text(pipeline: Any) -> None:  # noqa: ANN401
    declared = pipeline("type: long, from: {header: n}")
    rows = judged(declared, *[f'{{{AT}, "v": 5}}'] * 4, v=[b"7", None, b"x", b"\xff"])
    assert [outcome(row) for row in rows] == [7, None, "v (header n) is not a long: x", "unknown encoding: not UTF-8"]


def test_events_without_a_time(pipeline: Any) -> None:  # noqa: ANN401
    declared = pipeline("type: string", time="arrival")
    assert judged(declared, '{"v": "x"}', "{")[0]["arrived_at"] == NOW


EACH = "each: a.items"
ELEMENTS: list[tuple[str, list[tuple[int, object]]]] = [
    ('{"at": "2026-03-01T00:00:00Z", "a": {"items": [{"v": 1}, {"v": 2}]}}', [(1, 1), (2, 2)]),
    ('{"at": "2026-03-01T00:00:00Z", "a": {"items": [{"v": 1}, 7, {"v": "x"}, null]}}', [
        (1, 1), (2, "v: . is not an object: 7"), (3, "v is not a long: x"), (4, None),
    ]),
    ('{"at": "2026-03-01T00:00:00Z", "a": {"items": []}}', [(0, None)]),
    ('{"at": "2026-03-01T00:00:00Z", "a": {"items": null}}', [(0, None)]),
    ('{"at": "2026-03-01T00:00:00Z"}', [(0, None)]),
    ('{"at": "2026-03-01T00:00:00Z", "a": {"items": {}}}', [(0, "event.each: a.items is not an array: {}")]),
    ('{"at": "2026-03-01T00:00:00Z", "a": 1}', [(0, "event.each: a is not an object: 1")]),
    ('{"a": {"items": [{"v": 1}, {"v": 2}]}}', [(1, "missing at ($.at)"), (2, "missing at ($.at)")]),
    ("{", [(0, "not JSON")]),
    ("", [(0, "empty")]),
]  # fmt: skip


def test_each_element_is_an_event(pipeline: Any) -> None:  # noqa: ANN401
    """All in one batch, as a process of its own takes most of a second to start."""
    declared = pipeline("type: long", EACH)
    values = [b'{"a": {"items": []}}', *(record.encode() for record, _ in ELEMENTS)]
    for apart in (False, True):
        found = Judge(declared).judge(JsonRecords(values, range(1, len(values) + 1)), NOW, apart=apart)
        assert found.parents is not None
        parents = [parent for parent, (_, expected) in enumerate(ELEMENTS, 1) for _ in expected]
        assert found.parents.to_pylist() == [0, *parents]
        rows = iter(found.rows.to_pylist()[1:])
        for record, expected in ELEMENTS:
            for number, value in expected:
                row = next(rows)
                assert row["element"] == number, record
                if isinstance(value, str):
                    assert row["reason"].startswith(value), record
                    assert row["payload"] == record.encode()
                else:
                    assert (row["v"], row["outcome"]) == (value, "accepted" if number else "filtered"), record


def test_an_element_may_be_a_plain_value(pipeline: Any) -> None:  # noqa: ANN401
    rows = judged(pipeline("type: long, from: .", EACH), f'{{{AT}, "a": {{"items": [1, "2", null, {{}}]}}}}')
    assert [outcome(row) for row in rows] == [1, 2, None, "v (.) is not a long: {}"]


def test_an_element_may_be_an_array(pipeline: Any) -> None:  # noqa: ANN401
    items = '[[7, {"k": 8}], [], ["x"], {"k": 9}, [[1], 2]]'
    record = f'{{{AT}, "id": "i", "a": {{"items": {items}}}}}'
    first = judged(pipeline('type: long, from: "[0]"', EACH), record)
    assert [outcome(row) for row in first] == [
        7, None, "v ([0]) is not a long: x", 'v ([0]): . is not an array: {"k": 9}', "v ([0]) is not a long: [1]",
    ]  # fmt: skip
    second = judged(pipeline('type: long, from: [1, "k"]', EACH), record)
    assert [outcome(row) for row in second][:3] == [8, None, None]


KEYS = [
    ("[id, v]", '"id": "a\\"\\\\,", "v": 7', '["a\\"\\\\,",7]'),
    ("[v, id]", '"id": "", "v": -1', '[-1,""]'),
    ("none", '"v": 7', "kafka/0/5"),
]


@pytest.mark.parametrize(("number", "record", "expected"), KEYS)
def test_what_tells_events_apart(pipeline: Any, number: str, record: str, expected: str) -> None:  # noqa: ANN401
    declared = pipeline("type: long, required: true", number=number)
    rows = Judge(declared).judge(JsonRecords([f"{{{AT}, {record}}}".encode(), b"{"], range(2)), NOW).rows
    lying = rows.append_column("kafka_partition", pa.array([0, 0])).append_column("kafka_offset", pa.array([5, 6]))
    keyed = with_key(declared, lying)
    assert keyed["_tw_id"].to_pylist() == [expected, None]


CSV = [
    ("type: long, from: a.b", "", "id,at,a.b\n1,2026-03-01T00:00:00Z,7\n", 7),
    ("type: long", "{delimiter: '|'}", "id|at|v\n1|2026-03-01T00:00:00Z|7\n", 7),
    ("type: long", "{header: [v, id, at]}", "7,1,2026-03-01T00:00:00Z\n", 7),
    ("type: long", "{null_values: ['-', NA]}", "id,at,v\n1,2026-03-01T00:00:00Z,NA\n", None),
    ("type: string", "{null_values: ['-']}", 'id,at,v\n1,2026-03-01T00:00:00Z,"-"\n', None),
    ("type: long, default: 3", "{null_values: ['-']}", "id,at,v\n1,2026-03-01T00:00:00Z,-\n", 3),
    ("type: boolean", "{true_values: [yes], false_values: [no]}", "id,at,v\n1,2026-03-01T00:00:00Z,no\n", False),
    ("type: boolean", "{true_values: [yes]}", "id,at,v\n1,2026-03-01T00:00:00Z,true\n", True),
    ("type: boolean", "{true_values: [yes]}", "id,at,v\n1,2026-03-01T00:00:00Z,YES\n", "v is not a boolean: YES"),
    ("type: double", "{decimal: ','}", 'id,at,v\n1,2026-03-01T00:00:00Z,"1,5"\n', 1.5),
    ('type: "decimal(9,2)"', "{decimal: ','}", "id;at;v\n1;2026-03-01T00:00:00Z;-12,50\n", Decimal("-12.50")),
    ("type: double", "{decimal: ','}", "id;at;v\n1;2026-03-01T00:00:00Z;1.234\n", "v is not a double: 1.234"),
    ("type: double", "{decimal: ','}", "id;at;v\n1;2026-03-01T00:00:00Z;1.234,5\n", "v is not a double: 1.234,5"),
    ("type: double", "", 'id,at,v\n1,2026-03-01T00:00:00Z,"1,5"\n', "v is not a double: 1,5"),
    ("type: json", "", 'id,at,v\n1,2026-03-01T00:00:00Z,"{""a"": [1]}"\n', '{"a": [1]}'),
    ("type: json", "", 'id,at,v\n1,2026-03-01T00:00:00Z,"{""a"":}"\n', 'v is not a json: {"a":}'),
    ("type: timestamp, format: epoch_ms", "", f"id,at,v\n1,2026-03-01T00:00:00Z,{MS}\n", MARCH),
    ("type: json", "", "id,at,v\n1,2026-03-01T00:00:00Z, null\t\n", None),
    ("type: json", "", 'id,at,v\n1,2026-03-01T00:00:00Z,"""null"""\n', '"null"'),
    ("type: json, from: $", "", ",id,at\n9,1,2026-03-01T00:00:00Z\n", None),
    ("type: boolean", "{true_values: [off], false_values: ['true']}", "id,at,v\n1,2026-03-01T00:00:00Z,off\n", True),
    (
        "type: timestamp, format: epoch_s",
        "{decimal: ','}",
        "id;at;v\n1;2026-03-01T00:00:00Z;1772323200,5\n",
        MARCH.replace(microsecond=500_000),
    ),
    ("type: string, from: {key: true}", "", "id,at,v\n1,2026-03-01T00:00:00Z,x\n", None),
]


@pytest.mark.parametrize(("declared", "files", "content", "expected"), CSV)
def test_csv_as_the_file_says(pipeline: Any, declared: str, files: str, content: str, expected: object) -> None:  # noqa: ANN401
    made = pipeline(declared, files=files)
    (records,) = readers.read(io.BytesIO(content.encode()), "a.csv", made)
    (row,) = Judge(made).judge(records, NOW).rows.to_pylist()
    assert outcome(row) == expected


PARQUET = [
    ("type: long, from: a.b", {"a": [{"b": 7}]}, 7),
    ("type: long, from: a.b", {"a.b": [7], "a": [1]}, 7),
    ("type: long, from: a.b", {"a": [{"c": 7}]}, None),
    ("type: long, from: a.b", {"a": [None]}, None),
    ("type: long, from: a.b", {"a": ["x"]}, "v (a.b): a is not an object: x"),
    ('type: string, from: "a[1].b"', {"a": [[{"b": "x"}, {"b": "y"}]]}, "y"),
    ('type: string, from: "a[1].b"', {"a": [[{"b": "x"}]]}, None),
    ("type: json, from: a", {"a": [{"b": [1, 2]}]}, '{"b":[1,2]}'),
    ("type: timestamp, format: epoch_s", {"v": [MS // 1000]}, MARCH),
    ("type: timestamp, format: epoch_s", {"v": [MARCH]}, MARCH),
    ("type: date, format: '%d.%m.%Y'", {"v": [date(2026, 3, 1)]}, date(2026, 3, 1)),
    ("type: json, from: $", {"": ["x"]}, None),
    ("type: json", {"v": [float("nan")]}, "v is not a json: nan"),
    ("type: json", {"v": [1.5]}, "1.5"),
    ("type: timestamp", {"v": [MS]}, f"v is not a timestamp: {MS}"),
]


@pytest.mark.parametrize(("declared", "columns", "expected"), PARQUET)
def test_parquet(pipeline: Any, declared: str, columns: dict[str, list[Any]], expected: object) -> None:  # noqa: ANN401
    made, file = pipeline(declared), io.BytesIO()
    pq.write_table(pa.table({"id": ["1"], "at": [MARCH], **columns}), file)
    file.seek(0)
    (records,) = readers.read(file, "a.parquet", made)
    (row,) = Judge(made).judge(records, NOW).rows.to_pylist()
    assert outcome(row) == expected


FAULTS = [
    ("type: long, from: a..b", "", 'p.yaml:12: event.fields.v.from: found "a..b", expected a path'),
    ("type: long, from: 'a[x]'", "", "event.fields.v.from: found"),
    ("type: long, from: $.at", "", "event.fields.v.from: found $.at, from which at is read as timestamp"),
    ("type: long, from: at", "", "event.fields.v.from: found at, from which at is read as timestamp"),
    ("type: long, format: epoch_ms", "", "event.fields.v.format: found format on a long"),
    ("type: timestamp, format: epoch", "", "it has no directive such as %Y"),
    ("type: timestamp, format: '%H:%M'", "", "it names no year"),
    ("type: timestamp, format: '%Q %Y'", "", "%Q is none of the directives"),
    ("type: long, default: x", "", "event.fields.v.default: found"),
    ("type: long, default: 5, required: true", "", "only one of `required` and `default`"),
    ("type: string, default: abc, max_length: 2", "", "at most 2 characters, as the field's own rule says"),
    ("type: string, default: abc, pattern: '[0-9]+'", "", "a match of [0-9]+"),
    ("type: json, min: 5", "", "event.fields.v.min: found min on a json"),
    ("type: long, from: {header: ''}", "", "event.fields.v.from"),
    ("type: long, from: $", "", "found the whole record"),
    ("type: long", "each: 'items[]'", 'event.each: found "items[]"'),
    ("type: long", "each: '[0]'", 'event.each: found "[0]"'),
    ('type: long, from: "[0]"', "", "v.from: found [0], a place of the record, which is an object"),
    ('type: long, from: "a.[0]"', "", "v.from: found"),
    ('type: long, from: "$.[0]"', "each: items", "v.from: found"),
    ("type: long, from: $.v", "each: items", "event.id"),
]


@pytest.mark.parametrize(("declared", "event", "expected"), FAULTS)
def test_faults(tmp_path: Path, declared: str, event: str, expected: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        f"""name: p
topic: p
lateness: 1 minute
event:
  id: {"v" if event == "each: items" else "id"}
  time: at
  {event}
  fields:
    id: {{type: string, required: true}}
    at: {{type: timestamp, required: true}}
    # the next one is at fault
    v: {{{declared}{", required: true" if event == "each: items" else ""}}}
"""
    )
    pipeline, faults = check_file(path)
    assert pipeline is None
    assert expected in "\n".join(map(str, faults))
