"""The proof's own reading of Parquet agrees with the product's reader and contract, whatever the types."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.test_second_reading import in_file, judged
from twofold.definition.load import load_file


def test_parquet_is_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("""name: p
topic: p
lateness: 1 minute
event:
  id: id
  time: at
  fields:
    id: {type: string, required: true, from: user.id}
    at: {type: timestamp, required: true}
    n: {type: long, from: "items[1]"}
    d: {type: "decimal(5,2)"}
    day: {type: date}
    word: {type: string}
    raw: {type: json}
    x: {type: double}
""")
    pipeline = load_file(path)
    at = [
        datetime(2026, 3, 1, 0, 0, 0, 7, UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        None,
        datetime(2030, 1, 1, tzinfo=UTC),
    ]
    rows: dict[str, pa.Array] = {
        "user": pa.array([{"id": "a"}, {"id": None}, None, {"id": "b"}]),
        "at": pa.array(at, pa.timestamp("ns", "UTC")),
        "items": pa.array([[1, 2, 3], [1], None, [None, None]]),
        "d": pa.array([Decimal("1.500"), Decimal("1.505"), None, Decimal(99999)], pa.decimal128(9, 3)),
        "day": pa.array(at, pa.timestamp("us", "UTC")),
        "x": pa.array([-0.0, float("nan"), 1e300, None]),
    }
    words = [pa.array([5, -1, None, 7]), pa.array([True, None, False, True]), pa.array([0.1, 1e22, None, 5.0]),
             pa.array(["é", "", None, "x"]).dictionary_encode(), pa.array([b"a", b"\xff", None, b""]),
             pa.array([date(2026, 3, 1)] * 4), pa.array(at, pa.timestamp("ms", "UTC")),
             pa.array([time(12, 30)] * 4), pa.array(["null", "\tnull\n", '"null"', "nul"])]  # fmt: skip
    for word in words:
        written = io.BytesIO()
        pq.write_table(pa.table({**rows, "word": word, "raw": word}), written)
        assert not in_file(tmp_path, "x.parquet", written.getvalue(), pipeline), word.type


ONE = UUID("3d3701ae-9056-4787-91ca-e5fab90a5145")
HALF = datetime(2026, 3, 1, 0, 0, 0, 500_000)
FLAT = {"a.b": pa.array(["flat"])}
MAP = {"m": pa.array([[("k", "x"), ("k", "y"), ("n", None)]], pa.map_(pa.string(), pa.string()))}
PLACES: list[tuple[str, dict[str, pa.Array], str | None]] = [
    ("a.b", {"a": pa.array([{"b": "x"}]), **FLAT}, "x"),
    ('["a", "b"]', {**FLAT, "a": pa.array([{"b": "x"}])}, "x"),
    ('["a.b"]', {"a": pa.array([{"b": "x"}]), **FLAT}, "flat"),
    ("a.b", FLAT, "flat"),
    ("a.b", {"a": pa.array([1]), **FLAT}, "flat"),
    ("m.k", MAP, "y"),
    ("m.n", MAP, None),
    ("m.none", MAP, None),
    ("m.k.l", {"m": pa.array([[("k", [("l", "x")])]], pa.map_(pa.string(), pa.map_(pa.string(), pa.string())))}, "x"),
    ("f[1]", {"f": pa.array([["x", "y"]], pa.list_(pa.string(), 2))}, "y"),
    ("f[2]", {"f": pa.array([["x", "y"]], pa.list_(pa.string(), 2))}, None),
    ('"l[0][1]"', {"l": pa.array([[["x", "y"], []]])}, "y"),
    ('"l[999999999]"', {"l": pa.array([[["x", "y"], []]])}, None),
    ("u", {"u": pa.array([ONE], pa.uuid())}, str(ONE)),
    ("s.u", {"s": pa.StructArray.from_arrays([pa.array([ONE], pa.uuid())], ["u"])}, str(ONE)),
    ("l", {"l": pa.array([[HALF, None]], pa.list_(pa.timestamp("ns")))}, '["2026-03-01T00:00:00.500000Z",null]'),
    (
        "n",
        {"n": pa.array([{"f": [1e22, 0.5, float("nan")], "d": Decimal("1.50"), "b": b"\xff", "t": True, "u": "ü\n"}])},
        '{"f":[1e22,0.5,"nan"],"d":1.50,"b":"/w==","t":true,"u":"ü\\n"}',
    ),
    ("m", MAP, '{"k":"y","n":null}'),
    ("i", {"i": pa.array([[(1, 2)]], pa.map_(pa.int64(), pa.int64()))}, "[[1,2]]"),
    ("l", {"l": pa.array([[{"k": b"x", "d": date(2026, 3, 1)}]])}, '[{"k":"x","d":"2026-03-01"}]'),
]


@pytest.mark.parametrize(("path", "columns", "expected"), PLACES)
def test_places_in_parquet(tmp_path: Path, path: str, columns: dict[str, pa.Array], expected: str | None) -> None:
    written = io.BytesIO()
    pq.write_table(pa.table({**columns, "at": pa.array([HALF])}), written)
    path = path if path.startswith(("[", '"')) else f'"{path}"'
    [row] = judged(tmp_path, "x.parquet", written.getvalue(), f"v: {{type: string, from: {path}}}")
    assert row["v"] == expected


def in_parquet(column: pa.Array) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table({"at": pa.array([HALF] * len(column)), "v": column}), written)
    return written.getvalue()


def in_list(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays([0, len(values)], values)


def in_view(values: pa.Array) -> pa.Array:
    return pa.ListViewArray.from_arrays([0], [len(values)], values)


WORDS = pa.array(["k"]).dictionary_encode()
NO_UTF8 = pa.array([b"\xff"]).view(pa.string())
REPEATED = pa.array([[("x", 1), ("x", None)]], pa.map_(pa.string(), pa.duration("s")))
OF_PARQUET: list[tuple[str, pa.Array, str | None, str | None]] = [
    # What it is, a value of it, that as a text, and the same within a list; None: there is none, and it is rejected.
    ("a day past 9999", pa.array([10_000_000], pa.date32()), None, None),
    ("a day before 1", pa.array([-1_000_000], pa.date32()), None, None),
    ("a day", pa.array([date(2026, 3, 1)], pa.date64()), "2026-03-01", '["2026-03-01"]'),
    ("a moment past 9999", pa.array([10**15], pa.timestamp("ms")), None, None),
    ("a moment before 1", pa.array([-(10**17)], pa.timestamp("us", "UTC")), None, None),
    ("a moment", pa.array([1], pa.timestamp("ns")), "1970-01-01T00:00:00Z", '["1970-01-01T00:00:00Z"]'),
    ("a time", pa.array([45_000], pa.time32("ms")), "00:00:45", '["00:00:45"]'),
    ("a time in ns", pa.array([45_000_001_001], pa.time64("ns")), "00:00:45.000001", '["00:00:45.000001"]'),
    ("a duration", pa.array([1], pa.duration("s")), None, None),
    ("a duration in ns", pa.array([1], pa.duration("ns")), None, None),
    ("a text view", pa.array(["x"], pa.string_view()), "x", '["x"]'),
    ("a byte view", pa.array([b"x"], pa.binary_view()), "x", '["x"]'),
    ("bytes of a size", pa.array([b"xy"], pa.binary(2)), "xy", '["xy"]'),
    ("bytes", pa.array([b"\xff"], pa.large_binary()), None, '["/w=="]'),
    ("no UTF-8", NO_UTF8, None, '["/w=="]'),
    ("a half float", pa.array([1.5], pa.float16()), "1.5", "[1.5]"),
    ("a small decimal", pa.array([Decimal("1.50")], pa.decimal32(5, 2)), "1.5", "[1.50]"),
    ("a large decimal", pa.array([Decimal("1.50")], pa.decimal256(60, 2)), "1.5", "[1.50]"),
    ("a dictionary", WORDS, "k", '["k"]'),
    ("a bool of 8 bits", pa.array([1], pa.int8()).cast(pa.bool8()), "1", "[1]"),
    ("a JSON type", pa.array(['{"a":1}']).cast(pa.json_()), '{"a":1}', '["{\\"a\\":1}"]'),
    ("a UUID", pa.array([ONE], pa.uuid()), str(ONE), f'["{ONE}"]'),
    ("a list", pa.array([[1, 2]]), "[1,2]", "[[1,2]]"),
    ("a list view", pa.array([[1, 2]], pa.list_view(pa.int64())), "[1,2]", "[[1,2]]"),
    ("a large list view", pa.array([[1, 2]], pa.large_list_view(pa.int64())), "[1,2]", "[[1,2]]"),
    ("a list of a size", pa.array([[1, 2]], pa.list_(pa.int64(), 2)), "[1,2]", "[[1,2]]"),
    ("a tensor", pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((1, 2))), "[1.0,1.0]", "[[1.0,1.0]]"),
    ("a view of words", in_view(pa.concat_arrays([WORDS, WORDS])), '["k","k"]', '[["k","k"]]'),
    ("a view of no UTF-8 at all", in_view(pa.nulls(1)), "[null]", "[[null]]"),
    ("a view of UUIDs", in_view(pa.array([ONE], pa.uuid())), f'["{ONE}"]', f'[["{ONE}"]]'),
    ("a map by words", pa.MapArray.from_arrays([0, 1], WORDS, WORDS), '{"k":"k"}', '[{"k":"k"}]'),
    ("a map by bytes", pa.array([[(b"xy", 1)]], pa.map_(pa.binary(2), pa.int8())), '{"xy":1}', '[{"xy":1}]'),
    ("a map by views", pa.array([[("x", 1)]], pa.map_(pa.string_view(), pa.int8())), '{"x":1}', '[{"x":1}]'),
    ("a map by numbers", pa.array([[(7, "x")]], pa.map_(pa.int64(), pa.string())), '[[7,"x"]]', '[[[7,"x"]]]'),
    (
        "a map by UUIDs",
        pa.MapArray.from_arrays([0, 1], pa.array([ONE], pa.uuid()), WORDS),
        f'{{"{ONE}":"k"}}',
        f'[{{"{ONE}":"k"}}]',
    ),
    ("a map by days", pa.array([[(10_000_000, 1)]], pa.map_(pa.date32(), pa.int8())), None, None),
    ("a map of durations", pa.array([[("x", 1)]], pa.map_(pa.string(), pa.duration("s"))), None, None),
    ("a map of a duration that counts no more", REPEATED, None, None),
    ("a struct of days", pa.StructArray.from_arrays([pa.array([10_000_000], pa.date32())], ["d"]), None, None),
]


@pytest.mark.parametrize(
    ("values", "text", "within"), [row[1:] for row in OF_PARQUET], ids=[row[0] for row in OF_PARQUET]
)
def test_types_of_parquet_have_one_text_or_none(
    tmp_path: Path, values: pa.Array, text: str | None, within: str | None
) -> None:
    for column, expected in ((values, text), (in_list(values), within)):
        [row] = judged(tmp_path, "x.parquet", in_parquet(column), "v: {type: string}")
        assert (row["v"], row["outcome"]) == (expected, "accepted" if expected else "rejected")
        for kind in ("json", "long", "timestamp", "date", "double", "boolean", '"decimal(5,2)"'):
            judged(tmp_path, "x.parquet", in_parquet(column), f"v: {{type: {kind}}}")
    # What is rejected keeps a text of all its values.
    assert judged(tmp_path, "x.parquet", in_parquet(in_list(values)), "v: {type: int}")[0]["payload"]


@pytest.mark.parametrize("path", ["v.k", '"v[0]"', "v.k.k", '"v[0].k"', '"v[0][0]"'])
def test_paths_into_types_of_parquet_are_read_alike(tmp_path: Path, path: str) -> None:
    for _, values, _, _ in OF_PARQUET:
        struct = pa.StructArray.from_arrays([values], ["k"])
        for column in (values, in_list(values), struct, in_view(struct)):
            judged(tmp_path, "x.parquet", in_parquet(column), f"v: {{type: string, from: {path}}}")


LONG = "x" * 600
BOTH = pa.array([{"a": LONG, "n": 7, "b": [LONG]}])
AT_MOST_1_KIB: list[tuple[pa.Array, str, bool]] = [
    # A column, the fields that are read from it, and whether its row may be so large.
    (pa.array(["é" * 512]), "v: {type: string}", True),
    (pa.array(["é" * 512 + "x"]), "v: {type: string}", False),
    (pa.array(["é" * 512 + "x"]).dictionary_encode(), "v: {type: json}", False),
    (pa.array(["x" * 1025], pa.string_view()), "v: {type: string}", False),
    (pa.array([b"x" * 1025], pa.binary(1025)), "v: {type: string}", False),
    (pa.array([LONG]), "v: {type: string}\n    w: {type: string, from: v}", True),
    (BOTH, "v: {type: json}", False),
    (BOTH, "v: {type: string, from: v.a}", False),
    (BOTH, "v: {type: int, from: v.n}\n    w: {type: string, from: v.a}", False),
    (pa.array([[LONG, None, LONG]], pa.list_view(pa.string())), 'v: {type: string, from: "v[0]"}', False),
    (pa.array([[(LONG, LONG)]], pa.map_(pa.string(), pa.string())), "v: {type: json}", False),
    (pa.array([[(LONG, None)]], pa.map_(pa.string(), pa.string())), "v: {type: json}", True),
    (pa.array([list(range(1000))]), "v: {type: json}", True),
    (pa.array([list(range(1000))]), "v: {type: string}", True),
    (in_list(pa.array([ONE] * 28, pa.uuid())), "v: {type: json}", True),
    (in_list(pa.array([ONE] * 29, pa.uuid())), "v: {type: json}", False),
]


@pytest.mark.parametrize(("column", "fields", "fits"), AT_MOST_1_KIB)
def test_the_size_of_a_row_of_parquet_is_that_of_its_texts(
    tmp_path: Path, column: pa.Array, fields: str, fits: bool
) -> None:
    two = pa.concat_arrays([column, pa.nulls(1, column.type)])
    rows = judged(tmp_path, "x.parquet", in_parquet(two), fields, "event:\n  max_bytes: 1 KiB")
    assert [row["reason_kind"] for row in rows] == [None if fits else "too_large", None]


@pytest.mark.parametrize("kind", [pa.month_day_nano_interval(), pa.run_end_encoded(pa.int32(), pa.string())])
def test_other_types_are_none_of_parquet(kind: pa.DataType) -> None:
    with pytest.raises(pa.ArrowNotImplementedError):
        in_parquet(pa.nulls(1, kind))
