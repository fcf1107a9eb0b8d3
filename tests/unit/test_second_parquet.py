"""The proof's own reading of Parquet agrees with the product's reader and contract, whatever the types."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.test_second_reading import NOW, in_file
from twofold import readers
from twofold.contract.judge import Judge
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
    file = tmp_path / "p.yaml"
    path = path if path.startswith(("[", '"')) else f'"{path}"'
    file.write_text(
        "name: p\ntopic: p\nlateness: 1 minute\nevent:\n  id: none\n  time: at\n  fields:\n"
        f"    at: {{type: timestamp, required: true}}\n    v: {{type: string, from: {path}}}\n"
    )
    pipeline, written = load_file(file), io.BytesIO()
    pq.write_table(pa.table({**columns, "at": pa.array([HALF])}), written)
    [records] = readers.read(io.BytesIO(written.getvalue()), "x.parquet", pipeline)
    assert Judge(pipeline).judge(records, NOW).rows["v"].to_pylist() == [expected]
    assert not in_file(tmp_path, "x.parquet", written.getvalue(), pipeline)
