"""What the contract makes of each value, rule and record; the same value is judged alike in every format."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from twofold.contract import judge as judge_module
from twofold.contract.judge import Judge
from twofold.contract.literals import MAX_DEPTH
from twofold.contract.records import CellRecords, JsonRecords, too_large
from twofold.definition.model import Event, Expression, Field, Pipeline, Topic
from twofold.definition.types import FieldType

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KNOWN = {"id": "x", "at": "2026-03-01T11:00:00Z"}
NONE = "no value"
"""Not of the type."""


def pipeline(kind: str = "string", at: Field | None = None, **rules: Any) -> Pipeline:  # noqa: ANN401
    fields = {
        "id": Field("id", FieldType("string"), required=True),
        "at": at or Field("at", FieldType("timestamp"), required=True),
        "v": Field("v", FieldType.parse(kind), **rules),
    }
    return Pipeline("p", Topic("p"), Event(("id",), "at", fields), timedelta(minutes=1), {})


def judged(declared: Pipeline, *values: bytes | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        Judge(declared).judge(JsonRecords(values, range(1, len(values) + 1)), NOW).rows.to_pylist()
    )
    return found


def record(token: str | bytes, key: str = "v") -> bytes:
    token = token if isinstance(token, bytes) else token.encode()
    return b"%s,%s:%s}" % (json.dumps(KNOWN).encode()[:-1], json.dumps(key).encode(), token)


def of_cell(declared: Pipeline, cell: pa.Array) -> dict[str, Any]:
    columns = {**{name: pa.array([text]) for name, text in KNOWN.items()}, "v": cell}
    [row] = Judge(declared).judge(CellRecords(columns, [1], lambda _: b"the row"), NOW).rows.to_pylist()
    return dict(row)


def same(row: dict[str, Any], value: object) -> None:
    if value is NONE:
        assert (row["outcome"], row["reason_kind"]) == ("rejected", "wrong_type"), row
    else:
        assert row["outcome"] == "accepted", row["reason"]
        assert repr(row["v"]) == repr(value) or (row["v"] == value and isinstance(value, datetime))


WHOLE = {
    "5": 5, "-5": -5, "0": 0, "-0": 0, "5.0": 5, "1e2": 100, "1E+2": 100, "50e-1": 5, "100.00": 100, "0.1e1": 1,
    "2147483647": 2147483647, "-2147483648": -2147483648, "5.5": NONE, "1e-1": NONE, "1e300000000": NONE,
    "1e-30000000": NONE, "1e99999999999999999999": NONE, "123456789012345678901234567890": NONE,
    "1e" + "0" * 30 + "1": 10, "0e99999999999999999999": 0, "1e-99999999999999999999": NONE,
}  # fmt: skip
NUMBERS: dict[str, dict[str, object]] = {
    "int": {**WHOLE, "2147483648": NONE, "-2147483649": NONE, "3e9": NONE},
    "long": {
        **WHOLE,
        "9007199254740991.0": 2**53 - 1,
        "9007199254740992.0": NONE,
        "1e16": NONE,
        "9007199254740993": 2**53 + 1,
        "9223372036854775807": 2**63 - 1,
        "9223372036854775808": NONE,
    },
    "double": {
        "0.1": 0.1, "1e2": 100.0, "-0": 0.0, "-0.0": 0.0, "5e-324": 5e-324, "1e-30000000": 0.0, "1e400": NONE,
        "1e300000000": NONE, "9007199254740993": 2.0**53, "1" * 400: NONE, "0.30000000000000004": 0.1 + 0.2,
        "1e" + "0" * 30 + "1": 10.0, "1e-99999999999999999999": 0.0, "1e99999999999999999999": NONE,
    },
    "decimal(10,2)": {
        "1.5": Decimal("1.50"), "1.500": Decimal("1.50"), "150e-2": Decimal("1.50"), "1e2": Decimal("100.00"),
        "-0.0": Decimal("0.00"), "99999999.99": Decimal("99999999.99"), "1.005": NONE, "100000000": NONE,
        "1e300000000": NONE, "1e-30000000": NONE, "0.001": NONE, "0e5": Decimal("0.00"),
        "1e-" + "0" * 30 + "1": Decimal("0.10"), "0e99999999999999999999": Decimal("0.00"),
        "0." + "0" * 500 + "1": NONE, "1." + "0" * 500: Decimal("1.00"),
    },
    "decimal(38,18)": {
        "0.000000000000000001": Decimal("0.000000000000000001"),
        "99999999999999999999.999999999999999999": Decimal("99999999999999999999.999999999999999999"),
        "100000000000000000000": NONE,
    },
    "decimal(3,3)": {"0.125": Decimal("0.125"), "1": NONE, "0": Decimal("0.000")},
}  # fmt: skip
NO_NUMBERS = ["", " 5", "5 ", "+5", "0x1p3", "NaN", "Infinity", "-inf", "1,50", "1 000", "1_000", "٥", "5.", ".5", "1e",
              "true", "null", "5\x00", "5f", "½", "--5"]  # fmt: skip


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_are_read_alike_from_every_format(kind: str) -> None:
    declared = pipeline(kind)
    for text, value in NUMBERS[kind].items():
        same(judged(declared, record(text))[0], value)
        same(judged(declared, record(json.dumps(text)))[0], value)
        same(of_cell(declared, pa.array([text.encode()])), value)
        same(of_cell(declared, pa.array([text])), value)
    for text in ("007", "-000"):
        assert judged(declared, record(text))[0]["reason_kind"] == "not_json"
        assert judged(declared, record(f'"{text}"'))[0]["reason_kind"] in (None, "wrong_type")
        assert of_cell(declared, pa.array([text.encode()]))["v"] == judged(declared, record(f'"{text}"'))[0]["v"]


@pytest.mark.parametrize("kind", NUMBERS)
def test_what_is_no_number_is_none_in_any_format(kind: str) -> None:
    declared = pipeline(kind)
    for text in NO_NUMBERS:
        same(judged(declared, record(json.dumps(text)))[0], NONE)
        same(of_cell(declared, pa.array([text.encode()])), NONE)
    for token in ("true", "[5]", '{"a":5}', "[]"):
        same(judged(declared, record(token))[0], NONE)


TYPED: list[tuple[pa.Array, str, object]] = [
    (pa.array([5.0]), "int", 5),
    (pa.array([5.5]), "int", NONE),
    (pa.array([2.0**53]), "long", NONE),
    (pa.array([float("nan")]), "long", NONE),
    (pa.array([float("inf")]), "double", NONE),
    (pa.array([0.1], pa.float32()), "double", 0.10000000149011612),
    (pa.array([1.5], pa.float16()), "double", 1.5),
    (pa.array([2**63], pa.uint64()), "long", NONE),
    (pa.array([5], pa.uint8()), "decimal(10,2)", Decimal("5.00")),
    (pa.array([Decimal("5.00")]), "int", 5),
    (pa.array([Decimal("9007199254740993.00")]), "long", 2**53 + 1),
    (pa.array([Decimal("1.005")]), "decimal(10,2)", NONE),
    (pa.array([True]), "boolean", True),
    (pa.array([1]), "boolean", NONE),
    (pa.array([True]), "string", "true"),
    (pa.array([5]), "string", "5"),
    (pa.array([1772362800000000123], pa.timestamp("ns")), "timestamp", datetime(2026, 3, 1, 11, tzinfo=UTC)),
    (pa.array([-1], pa.timestamp("ns", "UTC")), "timestamp", datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
    (pa.array([3723000001999], pa.time64("ns")), "string", "01:02:03.000001"),
    (pa.array([1001], pa.duration("ns")), "string", NONE),
    (pa.array([253402300800], pa.timestamp("s")), "timestamp", NONE),
    (pa.array([253402300800], pa.timestamp("s")), "string", NONE),
    (pa.array([date(2026, 3, 1)]), "timestamp", datetime(2026, 3, 1, tzinfo=UTC)),
    (pa.array([86400], pa.timestamp("s")), "date", date(1970, 1, 2)),
    (pa.array([86401], pa.timestamp("s")), "date", NONE),
    (pa.array([2**31 - 1], pa.int32()).view(pa.date32()), "date", NONE),
    (pa.array([2**31 - 1], pa.int32()).view(pa.date32()), "string", NONE),
    (pa.array([[1.5, None]]), "string", "[1.5,null]"),
    (pa.array([{"a": Decimal("1.50"), "b": b"\xff"}]), "string", '{"a":1.50,"b":"/w=="}'),
    (pa.array([[1]]), "int", NONE),
    (pa.array(["5"]).dictionary_encode(), "int", 5),
    (pa.array([3600], pa.time32("s")), "string", "01:00:00"),
]


@pytest.mark.parametrize(("array", "kind", "value"), TYPED, ids=lambda value: str(getattr(value, "type", value)))
def test_typed_values_of_files(array: pa.Array, kind: str, value: object) -> None:
    same(of_cell(pipeline(kind), array), value)


def test_texts_of_files_that_are_no_utf8() -> None:
    text = pa.Array.from_buffers(pa.string(), 1, [*pa.array(["a"]).buffers()[:2], pa.py_buffer(b"\xff")])
    for array in (text, text.cast(pa.large_string()), pa.array([b"\xff"]), pa.array([b"\xff"], pa.binary(1))):
        assert of_cell(pipeline(), array)["reason_kind"] == "encoding"


BOOLEANS = {"true": True, "false": False, '"true"': True, '"FALSE"': False, "1": NONE, '"yes"': NONE, '" true"': NONE}


def test_booleans() -> None:
    for token, value in BOOLEANS.items():
        same(judged(pipeline("boolean"), record(token))[0], value)
        same(of_cell(pipeline("boolean"), pa.array([token.strip('"').encode()])), value)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


MOMENTS: dict[str, object] = {
    "2026-03-01": utc(2026, 3, 1), "2026-03-01T10:20": utc(2026, 3, 1, 10, 20), "2026-03-01 10:20:30": utc(2026, 3,
    1, 10, 20, 30),
    "2026-03-01t10:20:30z": utc(2026, 3, 1, 10, 20, 30), "2026-03-01T10:20:30.5Z": utc(2026, 3, 1, 10, 20, 30, 500000),
    "2026-03-01T10:20:30.999999999Z": utc(2026, 3, 1, 10, 20, 30, 999999), "2026-03-01T00:00:00+05:30": utc(2026, 2,
    28, 18, 30),
    "2026-03-01T00:00:00-23:59": utc(2026, 3, 1, 23, 59), "2024-02-29T00:00:00Z": utc(2024, 2, 29),
    "0001-01-01T00:00:00Z": utc(1, 1, 1), "9999-12-31T23:59:59.999999Z": utc(9999, 12, 31, 23, 59, 59, 999999),
    **dict.fromkeys([
        "2026-02-29", "2026-03-01T24:00:00Z", "2026-03-01T23:59:60Z", "2026-3-1", "20260301", "2026-03-01T10",
        "2026-060",
        "2026-03-01T10:20:30.Z", "2026-03-01T10:20:30.1234567890Z", "2026-03-01T10:20:30+0100",
        "2026-03-01T10:20:30+01",
        "2026-03-01T10:20:30 Europe/Berlin", "2026-03-01T10:20:30 UTC", "2026-03-01T10:20:30[UTC]",
        "2026-03-01T10:20+24:00",
        "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "0000-01-01", "01.03.2026", " 2026-03-01",
        "2026-03-01Z",
        "٢٠٢٦-03-01", "1772362800", "now", "", "2026-03-01T10:20:30+01:60", "2026-03-01\n",
    ], NONE),
}  # fmt: skip


def test_timestamps() -> None:
    declared = pipeline("timestamp")
    for text, value in MOMENTS.items():
        same(judged(declared, record(json.dumps(text)))[0], value)
        same(of_cell(declared, pa.array([text.encode()])), value)
    same(judged(declared, record("1772362800"))[0], NONE)


DAYS = {"2026-03-01": date(2026, 3, 1), "2024-02-29": date(2024, 2, 29), "0001-01-01": date(1, 1, 1),
    "2026-02-29": NONE,
        "2026-03-01T00:00:00Z": NONE, "20260301": NONE, "0000-01-01": NONE, "01.03.2026": NONE, "": NONE}  # fmt: skip


def test_dates() -> None:
    for text, value in DAYS.items():
        same(judged(pipeline("date"), record(json.dumps(text)))[0], value)
        same(of_cell(pipeline("date"), pa.array([text.encode()])), value)


TEXTS = {
    '"a"': "a", '""': "", '" "': " ", "1.10": "1.10", "1e300000000": "1e300000000", "-0": "-0", "true": "true",
    '[1.50, "a"]': '[1.50, "a"]', '{"b" : [ ]}': '{"b" : [ ]}', '"\\u00e9\\ud83d\\ude00\\u0000\\/"': "é\U0001f600\x00/",
}  # fmt: skip


def test_a_string_keeps_its_exact_text() -> None:
    for token, text in TEXTS.items():
        same(judged(pipeline(), record(token))[0], text)


def test_null_blank_and_absent() -> None:
    for kind in NUMBERS | {"string": 0, "date": 0, "timestamp": 0, "boolean": 0}:
        same(judged(pipeline(kind), record("null"))[0], None)
        assert judged(pipeline(kind, required=True), record("null"))[0]["reason"] == "missing v"
        assert judged(pipeline(kind, required=True), json.dumps(KNOWN).encode())[0]["reason_kind"] == "missing"
    assert judged(pipeline(required=True), record('""'))[0]["outcome"] == "accepted"


# Value tokens that RFC 8259 has, and others: wherever they stand, a record is JSON or is not.
SOUND = ["[]", "{}", "[ ]", "[1,2 ,3]", '"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\uD83D\\uDE00"', '"\x7f\u2028\ufeff"',
    "-0.0e-00",
         "1E22", '{"":0}', '{"a":1,"a":2}', "[[[[]]]]", "\t\r\n null \n",
         "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1), "123" * 40]  # fmt: skip
BROKEN: list[str | bytes] = [
    "", "[1,]", "[,1]", "[1 2]", "[", "]", '{"a":1,}', "{a:1}", '{"a"}', '{"a" 1}', '{"a":}', "{,}", "'a'", "NaN",
    "-NaN",
    "Infinity", "-Infinity", "nan", "True", "nul", "nulll", "undefined", "+1", ".5", "5.", "01", "-01", "-", "1e",
    "1e+",
    "0x10", "1_0", "\uff11", '"\\x41"', '"\\u12"', '"\\u12g4"', '"\\', '"\\a"', '"a\nb"', '"\t"', '"\x00"', '"', '"a',
    '"\\ud800"', '"\\udc00"', '"\\ud800\\u0041"', '["\\udead"]', '{"\\ud800":1}', "// no\n1", "1/**/", "\u00a01",
    "\u20281",
    "\f1", "\v1", "\ufeff1", "1}{", "1 1", "[1}", '{"a":1]', "[" * MAX_DEPTH + "]" * MAX_DEPTH, '[["a]', "#1", "<1>",
    '"a" "b"', "\x001",
]  # fmt: skip
BAD_BYTES = [
    b'"\xff"',
    b'"\xc0\x80"',
    b'"\xed\xa0\x80"',
    b'"\xf4\x90\x80\x80"',
    b'"\xe9"',
    b"\xff",
    b'{"\xff":1}',
    b'["\x80"]',
]


def within(token: str | bytes, key: str) -> bytes:
    return record(b"[%s]" % (token if isinstance(token, bytes) else token.encode()), key)


KEYS = {"declared": "v", "undeclared": "w", "empty": ""}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_strict_json_wherever_it_stands(key: str) -> None:
    rows = judged(pipeline(), *(record(token, key) for token in SOUND))
    assert [row["reason"] for row in rows] == [None] * len(SOUND)
    for way in (
        record,
        lambda token, key: record(b"[%s]" % (token if isinstance(token, bytes) else token.encode()), key),
    ):
        tokens = [token for token in BROKEN if token or way is record]
        rows = judged(pipeline(), *(way(token, key) for token in tokens))
        found = {token: row["reason_kind"] for token, row in zip(tokens, rows, strict=True)}
        assert {token: kind for token, kind in found.items() if kind != "not_json"} == {}
        assert {row["reason_kind"] for row in judged(pipeline(), *(way(token, key) for token in BAD_BYTES))} == {
            "encoding"
        }


WHOLE_RECORDS: dict[bytes | None, str] = {
    None: "empty", b"": "empty", b" \t\r\n": "empty", b"null": "not_json", b"[]": "not_json", b'"a"': "not_json",
    b"1": "not_json",
    b"{": "not_json", b"{}": "missing", b"[{}]": "not_json", b"\xef\xbb\xbf{}": "not_json", b"\x00": "not_json",
    b"\xff\xfe{\x00": "encoding",
    record("1") + record("1"): "not_json", record("1") + b"\n" + record("1"): "not_json",
    record("1") + b" junk }": "not_json",
    record("1") + b",": "not_json", record("1") + b"\x00": "not_json", record("1")[:-1]: "not_json",
    record("1")[1:]: "not_json",
    b'{"id":"x" "at":1}': "not_json", b"[" * 100_000: "not_json", b'{"a":' * 100_000: "not_json",
}  # fmt: skip


def test_exactly_one_object() -> None:
    rows = judged(pipeline(), *WHOLE_RECORDS)
    assert [row["reason_kind"] for row in rows] == list(WHOLE_RECORDS.values())
    assert [row["payload"] for row in rows] == list(WHOLE_RECORDS)
    assert judged(pipeline(), b" \r\n\t" + record("1") + b"\n")[0]["outcome"] == "accepted"


def test_the_last_of_a_repeated_key_counts_however_it_is_written() -> None:
    row = judged(pipeline("int"), record('1,"v":"x","\\u0076":2'))[0]
    assert (row["v"], row["outcome"]) == (2, "accepted")


def test_too_large() -> None:
    declared = pipeline()
    small = replace(declared, event=replace(declared.event, max_bytes=60))
    assert judged(small, record('"' + "a" * 30 + '"'))[0]["reason_kind"] == "too_large"
    known = [pa.array([text]) for text in KNOWN.values()]
    for cell in (pa.array([b"a" * 40]), pa.array(["é" * 20]), pa.array([["a" * 40]])):
        assert too_large([*known, cell], 60)[0].kind == "too_large"
        assert not too_large([*known, cell], 61)


def test_rules_tell_all_that_is_wrong_and_the_kind_of_the_first() -> None:
    declared = pipeline("string", max_length=3, pattern="[a-z]+", one_of=("abc", "no"))
    row = judged(declared, b'{"v":"ABCD","at":"2026-03-01T12:05:00.000001Z"}')[0]
    assert row["reason_kind"] == "missing"
    assert row["reason"] == (
        "missing id; v not one of abc, no: ABCD; v too long: 4 > 3 characters; "
        "from the future: at is 2026-03-01T12:05:00.000001Z, received 2026-03-01T12:00:00Z"
    )
    assert [row["reason_kind"] for row in judged(declared, record('"abc"'), record('"ab"'), record('"abc\\n"'))] == [
        None, "not_allowed", "not_allowed",
    ]  # fmt: skip
    pattern = pipeline("string", pattern="[a-z]{2}|é.")
    kinds = [
        row["reason_kind"] for row in judged(pattern, *map(record, ('"ab"', '"é\\ud83d\\ude00"', '"ab\\n"', '"xab"')))
    ]
    assert kinds == [None, None, "pattern", "pattern"]
    bounds = pipeline("decimal(5,2)", min=Decimal("0.5"), max=Decimal(1))
    kinds = [row["reason_kind"] for row in judged(bounds, *map(record, ("0.49", "0.5", "1.00", '"1.01"', "null")))]
    assert kinds == ["out_of_range", None, None, "out_of_range", None]


def test_the_event_time_has_a_floor_and_a_ceiling() -> None:
    def kind(moment: str, low: datetime | None = None) -> str | None:
        at = Field("at", FieldType("timestamp"), required=True, min=low)
        found: str | None = judged(pipeline(at=at), json.dumps({"id": "x", "at": moment}).encode())[0]["reason_kind"]
        return found

    assert kind("1970-01-01") is None
    assert kind("1969-12-31T23:59:59.999999Z") == kind("0001-01-01T00:00:00Z") == "out_of_range"
    assert kind("0001-01-01", utc(1, 1, 1)) is None
    assert kind("2025-12-31", utc(2026, 1, 1)) == "out_of_range"
    assert (kind("2026-03-01T12:05:00Z"), kind("2026-03-01T12:05:00.000001Z")) == (None, "future")


def test_a_filter_that_gives_null_is_filtered() -> None:
    declared = replace(pipeline("int"), filter=Expression("v > 0", "v > 0", FieldType("boolean")))
    rows = judged(declared, record("1"), record("0"), record("null"), record("x"), record('"1"'))
    assert [row["outcome"] for row in rows] == ["accepted", "filtered", "filtered", "rejected", "accepted"]


MANY = 1_000_000
HOSTILE = [
    *(form % (b"1" * MANY) for form in (b"%s", b'"%s"', b'"-%s"', b"0.%s", b"1e%s", b'"1e-%s"')),
    b"1." + b"0" * MANY, b'"' + b"0" * MANY + b'"', b"9" * (MANY // 2) + b"e-500000",
    b"[" * MANY, b'["' + b"[" * 300 + b'\\"' * (MANY // 3), b"[]" * (MANY // 2), b"[" + b"[]," * (MANY // 4) + b"[]]",
    b'"' + b"\\u0041" * (MANY // 6) + b'"', b'"' + b"a " * (MANY // 2) + b'"',
    b"{" + b'"a":1,' * (MANY // 7) + b'"a":1}',
]  # fmt: skip


@pytest.mark.parametrize("kind", ["string", "int", "long", "double", "decimal(38,10)", "boolean", "timestamp", "date"])
def test_no_value_takes_long(kind: str) -> None:
    rules: dict[str, Any] = {"pattern": "(([a-z]+ ?)+|(.*a){12}b)"} if kind == "string" else {}
    judge = Judge(pipeline(kind, **rules))
    for token in HOSTILE:
        value = record(token)[: 1 << 20]
        before = time.process_time()
        [row] = judge.judge(JsonRecords([value], [1]), NOW).rows.to_pylist()
        assert time.process_time() - before < 1, (token[:20], row["reason"])
        assert row["reason_kind"] != "not_judged"


def test_a_long_text_is_not_held_against_the_pattern() -> None:
    declared = pipeline("string", max_length=100, pattern="(.*a){1000}b")
    before = time.process_time()
    [row] = judged(declared, record('"' + "a" * 300_000 + '"'))
    assert time.process_time() - before < 1
    assert row["reason"] == "v too long: 300000 > 100 characters"


def test_only_the_record_that_the_code_fails_on_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judge_module.kept_rules  # type: ignore[attr-defined]

    def failing(declared: Pipeline, field: Field, array: pa.Array) -> list[pa.Array]:
        if field.name == "v" and "bad" in array.to_pylist():
            raise RuntimeError("a fault of ours\nmore of it")
        return whole(declared, field, array)

    monkeypatch.setattr(judge_module, "kept_rules", failing)
    values = [record(json.dumps(text)) for text in ("a", "b", "bad", "c", "bad", "d", "e")]
    rows = judged(pipeline(), *values, b"{")
    assert [row["v"] for row in rows] == ["a", "b", None, "c", None, "d", "e", None]
    assert [row["reason_kind"] for row in rows] == [
        None,
        None,
        "not_judged",
        None,
        "not_judged",
        None,
        None,
        "not_json",
    ]
    assert rows[2]["reason"] == "not judged: RuntimeError: a fault of ours"
    assert rows[2]["payload"] == values[2]


def test_a_row_whose_bytes_cannot_be_had_is_out_alone() -> None:
    def payload(index: int) -> bytes:
        raise LookupError(index)

    columns = {"id": pa.array(["x", "y"]), "at": pa.array([KNOWN["at"]] * 2), "v": pa.array(["1", "x"])}
    rows = Judge(pipeline("int")).judge(CellRecords(columns, [1, 2], payload), NOW).rows.to_pylist()
    assert [row["reason_kind"] for row in rows] == [None, "not_judged"]
    assert rows[1]["payload"] is None


def test_a_lack_of_memory_is_no_fault_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> list[pa.Array]:
        raise MemoryError

    monkeypatch.setattr(judge_module, "kept_rules", failing)
    with pytest.raises(MemoryError):
        judged(pipeline(), record("1"), record("2"))


def test_no_records_are_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged(pipeline()) == []
    monkeypatch.setattr(judge_module, "kept_rules", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        judged(pipeline())
