"""The fast way through the contract gives what the reference gives, whatever the records and the definition are."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from twofold.contract import reasons
from twofold.contract.judge import Judge
from twofold.contract.literals import is_deep
from twofold.contract.records import CellRecords, JsonRecords
from twofold.contract.reference import Judgement, Reference
from twofold.definition.model import Event, Expression, Field, Pipeline, Topic
from twofold.definition.types import FieldType

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATENESS = timedelta(minutes=1)
FILTER = Expression("coalesce(n, 0) >= 0", "coalesce(n, 0) >= 0", FieldType("boolean"))
ids = ["x", "é\U0001f600", "a" * 12]
moments = ["2026-03-01T11:59:59.5Z", "1970-01-01T00:00:00Z", "2026-03-01T12:05:00+00:00", "2026-03-01"]

# Rules are few and narrow, so that generated values fall on both sides of each.
RULES: dict[str, list[dict[str, Any]]] = {
    "string": [{}, {"max_length": 3}, {"pattern": "[a-z]*|.\U0001f600"}, {"one_of": ("x", "")}],
    "int": [{}, {"min": -5, "max": 100}, {"one_of": (0, 5, 100)}],
    "long": [{}, {"min": -(1 << 53)}, {"one_of": (0, 5, 1 << 53)}],
    "double": [{}, {"min": -0.5, "max": 1e22}],
    "decimal(10,2)": [{}, {"min": Decimal("-0.5"), "max": Decimal(100)}, {"one_of": (Decimal("1.5"), Decimal(5))}],
    "decimal(38,18)": [{}, {"max": Decimal("1e19")}],
    "decimal(3,3)": [{}],
    "boolean": [{}],
    "timestamp": [{}, {"min": datetime(1969, 1, 1, tzinfo=UTC), "max": datetime(2026, 3, 2, tzinfo=UTC)}],
    "date": [{}, {"min": date(1970, 1, 1)}, {"one_of": (date(2026, 3, 1), date(2024, 2, 29))}],
}


def needed(low: datetime | None = None) -> dict[str, Field]:
    return {
        "id": Field("id", FieldType("string"), required=True),
        "at": Field("at", FieldType("timestamp"), required=True, min=low),
    }


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    low = draw(st.sampled_from([None, datetime(1, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)]))
    fields = {**needed(low), "n": Field("n", FieldType("long"))}
    for number, kind in enumerate(draw(st.lists(st.sampled_from(list(RULES)), max_size=3))):
        rules = draw(st.sampled_from(RULES[kind]))
        name = f"f{number}"
        fields[name] = Field(name, FieldType.parse(kind), required=draw(st.booleans()), **rules)
    event = Event(("id",), "at", fields, max_bytes=draw(st.sampled_from([120, 1 << 20, 1 << 20])))
    return Pipeline("p", Topic("p"), event, LATENESS, {}, draw(st.sampled_from([None, FILTER])))


digits = st.text("0123456789", min_size=1, max_size=25)
numbers = st.one_of(
    st.integers(-6, 101).map(str),
    st.sampled_from([
        "0", "-0", "0.0", "-0.0", "5.0", "1e2", "1E+2", "50e-1", "1.50", "0.005", "0.001", "99999999.99",
        "99999999.995",
        "2147483647", "2147483648", "-2147483649", "9007199254740991.0", "9007199254740992", "9007199254740992.0",
        "9007199254740993", "9223372036854775807", "-9223372036854775808", "9223372036854775808",
        "18446744073709551616",
        "1e300000000", "1e-30000000", "0e99999999999999999999", "1e400", "5e-324", "2.2250738585072011e-308",
        "0.1000000000000000055511151231257827021181583404541015625", "1e22", "1e23", "12345678901234567890.5",
        "99999999999999999999.999999999999999999", "0." + "0" * 17 + "1", "0." + "0" * 18 + "1", "1." + "0" * 40,
        "123456789012345678901234567890123456789", "00", "01", "1.", ".5", "+5", "1e", "1e+", "-", "NaN", "Infinity",
        "-Infinity", "0x1p3", "1_0", "1,50", "٥", " 5", "5 ",
    ]),
    st.builds("{}{}.{}e{}".format, st.sampled_from(["", "-"]), digits, digits, st.integers(-30, 30)),
    st.builds("{}{}".format, st.sampled_from(["", "-"]), digits),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9).map(str),
)  # fmt: skip
stamps = st.one_of(
    st.sampled_from([
        "2026-03-01T11:00:00Z", "2026-03-01T11:00:00", "2026-03-01 11:00:00Z", "2026-03-01t11:00:00z",
        "2026-03-01T11:00Z",
        "2026-03-01", "2026-03-01T11", "2026-03-01T11:00:00.123456789Z", "2026-03-01T11:00:00.1234567890Z",
        "2026-03-01T12:05:00Z", "2026-03-01T12:05:00.000001Z", "2026-03-01T24:00:00Z", "2026-03-01T23:59:60Z",
        "2026-02-29T00:00:00Z", "2024-02-29", "1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "0000-01-01", "9999-12-31T23:59:59-01:00", "9999-12-31",
        "2026-03-01T11:00:00+0100", "2026-03-01T11:00:00+01", "2026-03-01T11:00:00+24:00", "2026-03-01T11:00:00+23:59",
        "2026-03-01T11:00:00-00:00", "2026-03-01T11:00:00+01:60", "2026-03-01T11:00:00 Europe/Berlin", "20260301",
        "2026-3-1", "2026-060", "2026-W09-7", "+2026-03-01", "٢٠٢٦-03-01", "2026-03-01T11:00:00Z\n", "1772362800",
    ]),
    st.datetimes().map(datetime.isoformat),
    st.builds(
        lambda at, zone: at.isoformat() + zone, st.datetimes(), st.sampled_from(["Z", "+05:30", "-23:59", "+00:00"])
    ),
    st.dates().map(date.isoformat),
)  # fmt: skip
words = st.one_of(
    st.sampled_from(
        ["", " ", "x", "true", "TRUE", "false", "null", "a", "abcd", "é\U0001f600", "\x00", "\x7f", "\ufeff"]
    ),
    st.text(max_size=12),
)


def in_quotes(text: str) -> st.SearchStrategy[str]:
    """The text as a JSON string: plain, or with characters written as escapes at random."""

    def escaped(which: list[bool]) -> str:
        units = []
        for index, character in enumerate(text):
            if which[index % len(which)]:
                raw = character.encode("utf-16-be", "surrogatepass")
                units += [f"\\u{raw[at : at + 2].hex()}" for at in range(0, len(raw), 2)]
            else:
                units.append(json.dumps(character, ensure_ascii=False)[1:-1])
        return f'"{"".join(units)}"'

    return st.lists(st.booleans(), min_size=1, max_size=4).map(escaped)


strings = st.one_of(words, numbers, stamps, st.sampled_from(moments)).flatmap(in_quotes)
hostile = st.sampled_from([
    '"\\ud800"', '"\\udc00\\ud800"', '"\\uD83D\\uDE00"', '"\\x"', '"\\u12"', '"\\"', '"a\nb"', '"\t"', '"', "'a'", "",
    "nul", "True", "undefined", "[", "{", "[1,]", "[,1]", '{"a":1,}', '{"a"}', '{a:1}', "[1 2]", '{"a" "b"}', "// x",
    "1//x",
    "[" * 900 + "]" * 900, "[" * 1001 + "]" * 1001, "{}{}", "{} ", '["\\ud800"]', '{"\\ud800":1}', "\ufeff1", "\u00a01",
    "[1,\u2003 2]", "[[]", "tru", "truee", "-a", "1a", '"a" "b"',
])  # fmt: skip
plain = st.one_of(
    numbers,
    strings,
    st.sampled_from(["null", "true", "false", "[]", "{}", '[1.50, "a"]', '{"a" : [null]}', '{"a":{"id":"z"}}']),
)
tokens = st.one_of(plain, plain, plain, hostile)
blanks = st.sampled_from(["", "", "", " ", "\n", "\t\r\n ", "\f", "\u00a0"])
keys = st.one_of(
    st.sampled_from(["id", "at", "n", "f0", "f1", "f2", "other", "", "ID", "id ", "\ufeffid"]).flatmap(in_quotes),
    st.sampled_from(['"\\ud800"', '"i\\x64"', "id", '"i\x01d"', '"a\\"b"']),
)


@st.composite
def texts(draw: st.DrawFn) -> bytes | None:
    """Mostly an object that names the declared fields, with whatever values."""
    pairs = [
        (f'"{name}"', draw(tokens)) for name in draw(st.permutations(["n", "f0", "f1", "f2"])) if draw(st.booleans())
    ]
    if draw(st.integers(0, 9)):
        pairs.insert(0, ('"id"', json.dumps(draw(st.sampled_from(ids)))))
        pairs.append(('"at"', json.dumps(draw(st.sampled_from(moments)))))
    pairs += draw(st.lists(st.tuples(keys, tokens), max_size=2))
    around = [draw(blanks) if draw(st.booleans()) else "" for _ in range(4)]
    inner = f"{around[0]},{around[1]}".join(f"{key}{around[2]}:{around[3]}{value}" for key, value in pairs)
    text = f"{{{inner}}}".encode("utf-8", "surrogatepass")
    match draw(st.integers(0, 12)):
        case 0:
            at = draw(st.integers(0, len(text)))
            return text[:at] + draw(st.binary(max_size=3)) + text[at + draw(st.integers(0, 3)) :]
        case 1:
            return text + draw(st.sampled_from([b"{}", b" ", b"\n{}", b",", b"x", b"\x00", b"\xff", b"}"]))
        case 2:
            return draw(
                st.sampled_from([None, b"", b" \n", b"[]", b"1", b'"x"', b"null", b"\xef\xbb\xbf{}", b"[{}]", b"\xff"])
            )
    return text


def exactly(row: dict[str, Any]) -> dict[str, str]:
    """Values as text that tells apart what equality does not: signs of zero, scales of decimals."""
    return {
        name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else repr(value)
        for name, value in row.items()
    }


def expected(judgement: Judgement, pipeline: Pipeline, payload: bytes | None) -> dict[str, str]:
    values, fault = judgement
    assert (values is None) != (fault is None)
    assert fault is None or fault.kind != reasons.NOT_JUDGED
    assert fault is None or fault.kind in reasons.KINDS
    found = dict(values) if values is not None else dict.fromkeys(pipeline.columns)
    filtered = pipeline.filter is not None and (found["n"] or 0) < 0
    judged = {
        "outcome": "rejected" if fault else "filtered" if filtered else "accepted",
        "reason_kind": fault.kind if fault else None,
        "reason": fault.text if fault else None,
        "payload": payload if fault else None,
    }
    return exactly({**found, **judged})


FEW = settings(max_examples=80, suppress_health_check=list(HealthCheck))


@FEW
@given(pipelines(), st.lists(texts(), min_size=1, max_size=8))
def test_json_is_judged_as_by_the_reference(pipeline: Pipeline, values: list[bytes | None]) -> None:
    judge, reference = Judge(pipeline), Reference(pipeline)
    rows = judge.judge(JsonRecords(values, range(1, len(values) + 1)), NOW).rows.to_pylist()
    assert len(rows) == len(values)
    for row, value in zip(rows, values, strict=True):
        assert exactly(row) == expected(reference.event(reference.around(value, {}), NOW), pipeline, value), value
        [alone] = judge.judge(JsonRecords([value], [1]), NOW).rows.to_pylist()
        assert exactly(alone) == exactly(row)


def is_one_object(value: bytes) -> bool:
    """What an independent parser says, made strict: no constants beyond JSON's, and no half surrogates."""

    def pairs(found: list[tuple[str, object]]) -> dict[str, object]:
        for key, inner in found:
            key.encode()
            whole(inner)
        return dict(found)

    def whole(inner: object) -> None:
        if isinstance(inner, str):
            inner.encode()
        elif isinstance(inner, list):
            for one in inner:
                whole(one)

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        found = json.loads(
            value.decode(), object_pairs_hook=pairs, parse_constant=refuse, parse_int=str, parse_float=str
        )
    except ValueError:
        return False
    return isinstance(found, dict)


@FEW
@given(texts())
def test_syntax_is_what_another_strict_parser_takes(value: bytes | None) -> None:
    # How deep a record may be is ours to say.
    assume(not is_deep(value or b""))
    fields = {name: Field(name, FieldType("string")) for name in ("n", "f0")}
    pipeline = Pipeline("p", Topic("p"), Event(("id",), "at", {**needed(), **fields}), LATENESS, {})
    [row] = Judge(pipeline).judge(JsonRecords([value], [1]), NOW).rows.to_pylist()
    unreadable = row["reason_kind"] in (reasons.EMPTY, reasons.ENCODING, reasons.NOT_JSON)
    assert unreadable == (not is_one_object(value or b"")), (value, row["reason"])


cells = st.one_of(
    st.none(),
    st.one_of(words, numbers, stamps).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=6),
)


def judged_alike(judge: Judge, columns: dict[str, pa.Array]) -> None:
    length = len(next(iter(columns.values())))
    records = CellRecords(columns, range(1, length + 1), lambda index: f"row {index}".encode())
    pipeline = judge.pipeline
    reference = Reference(pipeline)
    rows = judge.judge(records, NOW).rows.to_pylist()
    for index, row in enumerate(rows):
        judgement = reference.cells({name: array[index] for name, array in columns.items()}, NOW)
        assert exactly(row) == expected(judgement, pipeline, f"row {index}".encode())


def known(length: int) -> dict[str, pa.Array]:
    return {"id": pa.array(["x"] * length), "at": pa.array([moments[0]] * length)}


@FEW
@given(st.data())
def test_csv_cells_are_judged_as_by_the_reference(data: st.DataObject) -> None:
    pipeline = data.draw(pipelines())
    length = data.draw(st.integers(1, 6))
    names = [name for name in pipeline.columns if name not in ("id", "at") or data.draw(st.integers(0, 5)) == 0]
    columns = {
        **{name: array.cast(pa.binary()) for name, array in known(length).items()},
        **{name: pa.array(data.draw(st.lists(cells, min_size=length, max_size=length)), pa.binary()) for name in names},
    }
    judged_alike(Judge(pipeline), columns)


def bits(width: int, signed: bool = True) -> st.SearchStrategy[int]:
    low, high = (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)
    return st.one_of(st.integers(max(low, -6), 101), st.integers(low, high), st.sampled_from([low, high]))


def by_bits(kind: pa.DataType, width: int) -> st.SearchStrategy[pa.Array]:
    """Arrays of a type whose values are numbers of so many bits, all of them possible."""
    near = [
        0,
        1,
        -1,
        1772362800,
        1772362800000,
        1772362800000000,
        1772362800000000123,
        -62135596800,
        253402300800,
        20513,
    ]
    inside = [value for value in near if -(1 << width - 1) <= value < 1 << width - 1]
    numbers_of_it = st.lists(st.none() | st.sampled_from(inside) | bits(width), min_size=1, max_size=5)
    return numbers_of_it.map(lambda found: pa.array(found, pa.int32() if width == 32 else pa.int64()).view(kind))


def listed(kind: pa.DataType, values: st.SearchStrategy[Any]) -> st.SearchStrategy[pa.Array]:
    return st.lists(st.none() | values, min_size=1, max_size=5).map(lambda found: pa.array(found, kind))


floats = st.floats() | st.sampled_from([5.0, -0.0, 1e2, 2.0**53, 2.0**53 - 1, 2.0**31, -(2.0**63), 1e22, 0.1])
some_text = st.one_of(words, numbers, stamps).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    return (st.integers(-most, most) | st.integers(-600, 600)).map(lambda n: Decimal(n).scaleb(-scale))


def not_utf8() -> pa.Array:
    """A text column of a file whose writer did not care: Arrow reads it without a look."""
    return pa.Array.from_buffers(pa.string(), 2, [*pa.array(["a", "b"]).buffers()[:2], pa.py_buffer(b"\xffb")])


ONE_FIELD = [
    Judge(
        Pipeline(
            "p", Topic("p"), Event(("id",), "at", {**needed(), "f0": Field("f0", FieldType.parse(kind))}), LATENESS, {}
        )
    )
    for kind in RULES
]
ARRAYS: dict[str, st.SearchStrategy[pa.Array]] = {
    **{f"int{width}": listed(getattr(pa, f"int{width}")(), bits(width)) for width in (8, 16, 32, 64)},
    **{f"uint{width}": listed(getattr(pa, f"uint{width}")(), bits(width, False)) for width in (8, 16, 32, 64)},
    "float16": listed(pa.float16(), st.floats(width=16)),
    "float32": listed(pa.float32(), st.floats(width=32) | st.sampled_from([5.0, -0.0, 2.0**31])),
    "float64": listed(pa.float64(), floats),
    "decimal128(38,18)": listed(pa.decimal128(38, 18), decimals(20, 2)),
    "decimal128(5,0)": listed(pa.decimal128(5, 0), decimals(5, 0)),
    "decimal128(5,-2)": listed(pa.decimal128(5, -2), st.integers(-500, 500).map(lambda n: Decimal(n).scaleb(2))),
    "decimal256(60,20)": listed(pa.decimal256(60, 20), decimals(30, 20)),
    "bool": listed(pa.bool_(), st.booleans()),
    "date32": by_bits(pa.date32(), 32),
    "date64": by_bits(pa.date64(), 64),
    **{
        f"timestamp[{unit},{zone}]": by_bits(pa.timestamp(unit, zone), 64)
        for unit in ("s", "ms", "us", "ns")
        for zone in (None, "UTC", "Europe/Berlin", "+05:30")
    },
    "time32": listed(pa.time32("s"), st.times().map(lambda time: time.replace(microsecond=0))),
    "time64": listed(pa.time64("ns"), st.times()),
    "duration": by_bits(pa.duration("us"), 64),
    "string": listed(pa.string(), some_text),
    "large_string": listed(pa.large_string(), some_text),
    "string_view": listed(pa.string_view(), some_text),
    "not UTF-8": st.just(not_utf8()),
    "not UTF-8, large": st.builds(lambda: not_utf8().cast(pa.large_string())),
    "binary": listed(pa.binary(), st.binary(max_size=5) | some_text.map(str.encode)),
    "large_binary": listed(pa.large_binary(), st.binary(max_size=5) | some_text.map(str.encode)),
    "binary_view": listed(pa.binary_view(), st.binary(max_size=5) | some_text.map(str.encode)),
    "fixed_size_binary": listed(pa.binary(2), st.binary(min_size=2, max_size=2)),
    "dictionary": listed(pa.string(), some_text).map(lambda array: array.dictionary_encode()),
    "dictionary of ints": listed(pa.int64(), bits(64)).map(lambda array: array.dictionary_encode()),
    "dictionary of bytes": listed(pa.binary(), st.binary(max_size=3)).map(lambda array: array.dictionary_encode()),
    "run_end_encoded": listed(pa.string(), some_text).map(pc.run_end_encode),
    "list": listed(pa.list_(pa.float64()), st.lists(floats, max_size=3)),
    "list of bytes": listed(pa.list_(pa.binary()), st.lists(st.binary(max_size=3), max_size=3)),
    "list of moments": listed(pa.list_(pa.timestamp("us")), st.lists(st.datetimes(), max_size=2)),
    "struct": listed(
        pa.struct([("a", pa.int8()), ("b", pa.decimal128(5, 2))]), st.just({"a": 1, "b": Decimal("1.50")})
    ),
    "struct with a name twice": st.just(pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])),
    "map": listed(pa.map_(pa.string(), pa.int8()), st.just([("a", 1)])),
    "null": st.builds(pa.nulls, st.integers(1, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_values_of_every_arrow_type_are_judged_as_by_the_reference(name: str) -> None:
    @settings(FEW, max_examples=4)
    @given(ARRAYS[name])
    def agree(array: pa.Array) -> None:
        for judge in ONE_FIELD:
            judged_alike(judge, {**known(len(array)), "f0": array})

    agree()
