"""What readers make of the bytes of one file: each record once, whatever it holds, or the file set aside."""

import base64
import codecs
import errno
import gzip
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twofold.contract.records import CellRecords, JsonRecords
from twofold.definition.model import Event, Field, Pipeline, Topic
from twofold.definition.types import FieldType
from twofold.readers import SetAside, csv_rows, json_texts, read

FIELDS = ("id", "at", "a")
PIPELINE = Pipeline(
    "p",
    Topic("p"),
    Event(("id",), "at", {name: Field(name, FieldType.parse("string")) for name in FIELDS}),
    SimpleNamespace(),  # type: ignore[arg-type]
    {},
)


def cells(data: bytes, name: str = "x.csv", block_bytes: int = 1 << 20) -> list[dict[str, Any] | str]:
    """Each row's declared cells, or the fault of the row; numbers are held to count from 1."""
    found: list[dict[str, Any] | str] = []
    for piece in read(io.BytesIO(data), name, PIPELINE, block_bytes=block_bytes):
        assert isinstance(piece, CellRecords)
        assert list(piece.numbers) == list(range(len(found) + 1, len(found) + len(piece) + 1))
        columns = {column: values.to_pylist() for column, values in piece.columns.items()}
        for index in range(len(piece)):
            row = {column: values[index] for column, values in columns.items()}
            if index in piece.faults:
                assert not any(row.values())
            found.append(piece.faults[index].text if index in piece.faults else row)
    return found


def payloads(data: bytes, name: str = "x.csv") -> list[bytes | None]:
    return [piece.payload(index) for piece in read(io.BytesIO(data), name, PIPELINE) for index in range(len(piece))]


def texts(data: bytes, name: str = "x.json", block_bytes: int = 1 << 20) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    for piece in read(io.BytesIO(data), name, PIPELINE, block_bytes=block_bytes):
        assert isinstance(piece, JsonRecords)
        found += [(number, value or b"") for number, value in zip(piece.numbers, piece.values, strict=True)]
    return found


def reason(data: bytes, name: str) -> str:
    with pytest.raises(SetAside) as caught:
        for _ in read(io.BytesIO(data), name, PIPELINE):
            pass
    return str(caught.value)


X, Y = {"id": b"1", "a": b"x"}, {"id": b"2", "a": b"y"}
WRONG = "malformed row: wrong number of columns: the header has 2, the row "
WITHIN = "malformed row: a quote stands within an unquoted cell; quote the whole cell and double the quotes in it"
AFTER = "malformed row: a quoted cell continues after its closing quote; double the quotes within it"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"id,a\n1,x\n2,y\n", [X, Y]),
        (b"id,a\r\n1,x\r\n2,y", [X, Y]),
        (b"id,a\r1,x\r2,y\r", [X, Y]),
        (b"id,a\r1,x\n2,y\r\n", [X, Y]),
        (b"id;a\n1;x\n2;y\n", [X, Y]),
        (b"id\ta\n1\tx\n2\ty\n", [X, Y]),
        (codecs.BOM_UTF8 + b"id,a\n1,x\n", [X]),
        (codecs.BOM_UTF8 + b'"id",a\n1,x\n', [X]),
        (b"\n \n id , a \n1,x\n", [X]),
        (b'"i\nd",id,a\n0,1,x\n', [X]),
        (b"ID,id,A,a\n9,1,9,x\n", [X]),
        (b"id,a,,\n1,x,,\n", [X]),
        (b'id,a\n1,"x\n2,y"\n', [{"id": b"1", "a": b"x\n2,y"}]),
        (b'id,a\r1,"l\r\n""m""\r"\r2,y', [{"id": b"1", "a": b'l\r\n"m"\r'}, Y]),
        (b'id,a\n1,\n2,""\n', [{"id": b"1", "a": None}, {"id": b"2", "a": b""}]),
        (b"id,a\n1,\0\n", [{"id": b"1", "a": b"\0"}]),
        (b"id,a\n1,\xff\n2,y\n", [{"id": b"1", "a": b"\xff"}, Y]),
        (b"id,a\n\n1,x\n \t\n2,y\n\n", [X, Y]),
        (b"id\ta\n\t\n \n1\tx\n", [{"id": None, "a": None}, X]),
        (b'id\ta\n\t\n \n"1"x\t\n\t\n1\tx\n', [{"id": None, "a": None}, AFTER, {"id": None, "a": None}, X]),
        (b"id\n\n \n1\n", [{"id": b" "}, {"id": b"1"}]),
        (b"id,a\n1,\xe2\x80\xa8\n", [{"id": b"1", "a": b"\xe2\x80\xa8"}]),
        (b"id,a\n1\n1,x,\n2,y\n", [WRONG + "1", WRONG + "3", Y]),
        (b'id,a\n1,"5" pipe"\n1,x\n2,y\n', [AFTER, X, Y]),
        (b'id,a\n1,5" pipe\n1,x\n2,"y"\n', [WITHIN, X, Y]),
        (b'id,a\n1,="001"\n1,x\n', [WITHIN, X]),
        (b'id,a\n1,"x\n1,x\n1,"x"\n2,y\n', [AFTER, X, X, Y]),  # the quote closes only in a later row
        (b'id,a\n1,""x\n2,y', [AFTER, Y]),
        (b'id,a\n1,"x" \n2,y', [AFTER, Y]),
        (b"id,a\n", []),
        (b"id,a", []),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 1 << 20])
def test_csv_rows(data: bytes, expected: list[Any], block_bytes: int) -> None:
    assert cells(data, block_bytes=block_bytes) == expected


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_told_by_its_mark_or_by_the_first_characters(encoding: str) -> None:
    text = "id,a\r\n1,ä\r\n2,𝄞\r\n"
    expected = [{"id": b"1", "a": "ä".encode()}, {"id": b"2", "a": "𝄞".encode()}]
    for block_bytes in (1, 3, 100):
        assert cells(text.encode(encoding), block_bytes=block_bytes) == expected
    assert texts('{"id": "ä"}\r{}'.encode(encoding)) == [(1, '{"id": "ä"}'.encode()), (2, b"{}")]
    assert texts('[{"id": "ä"}]'.encode(encoding)) == [(1, '{"id": "ä"}'.encode())]


def test_half_a_surrogate_pair_is_its_own_cells_fault() -> None:
    data = codecs.BOM_UTF16_LE + "id,a\n1,".encode("utf-16-le") + b"\x00\xd8" + "\n2,y\n".encode("utf-16-le")
    assert cells(data) == [{"id": b"1", "a": b"\xed\xa0\x80"}, Y]


def test_a_first_line_of_zeros_spoils_no_other_line() -> None:
    assert texts(b"a\0b\0c\0\n{}\n") == [(1, b"a\0b\0c\0"), (2, b"{}")]


@pytest.mark.parametrize(
    ("data", "name", "says"),
    [
        (b"", "x.csv", "the file has no header"),
        (b" \n\n", "x.csv", "the file has no header"),
        (b"x,y,z\n1,2,3\n", "x.csv", "names no declared field, it begins with 'x', 'y', 'z'"),
        (b"id,a,a\n1,2,3\n", "x.csv", "the header has a more than once"),
        (b"id|a\n1|2\n", "x.csv", "separated by comma, semicolon or tab"),
        (b"\xffid,a\n1,2\n", "x.csv", "the header is not UTF-8"),
        ("id,a\n1,2\n".encode("utf-32"), "x.csv", "UTF-32"),
        ("id,a\n1,2\n".encode("utf-32-le"), "x.csv", "UTF-32"),
        ('{"id": 1}'.encode("utf-32-be"), "x.json", "UTF-32"),
        ("имя,id\n1,2\n".encode("utf-16-le"), "x.csv", "save"),
        (codecs.BOM_UTF16_LE + "id,a\n1,2".encode("utf-16-le")[:-1], "x.csv", "broken UTF-16"),
        (b'id,"a\n1,2\n', "x.csv", "the header has no end: the quoted cell that opens in line 1 is not closed"),
        (b'id,"a"b\n1,2\n', "x.csv", "the header is malformed"),
        (b'id,a\n\n1,x\n"2\r\n3",y\n4,"z\n5,z\n', "x.csv", "row 3: the quoted cell that opens in line 6 is not closed"),
        (b'id,a\n1,x"\n2,y\n3,"z', "x.csv", "row 3: the quoted cell that opens in line 4 is not closed"),
        (b"[{}", "x.json", "element 1: the file ends within it, or before"),
        (b'[{"a": 1}, {"b": "x]', "x.json", "element 2: the file ends within it"),
        (b"[", "x.json", "element 1: the file ends within it"),
        (b"[{},]", "x.json", "element 2: there is nothing"),
        (b"[,{}]", "x.json", "element 1: there is nothing"),
        (b"[{} {}]", "x.json", "element 1: no comma follows it"),
        (b"[{}, 1 {}]", "x.json", "element 2: a comma is missing"),
        (b"[{}, 1 2]", "x.json", "element 2: a comma is missing"),
        (b"[{}}]", "x.json", "element 1: no comma follows it"),
        (b"[}]", "x.json", "element 1: a bracket is closed that was not opened"),
        (b'[{"a": [1}, {}]', "x.json", "element 1: its brackets do not match"),
        (b"[{}] {}", "x.json", "something follows its end"),
        (b"[{}]\n\n]", "x.json", "something follows its end"),
        (b"", "x.json.gz", "broken gzip"),
        (gzip.compress(b"{}", mtime=0)[:-1], "x.json.gz", "broken gzip"),
        (gzip.compress(b"{}", mtime=0) + b"junk", "x.json.gz", "broken gzip"),
        (gzip.compress(b"{}", mtime=0)[:-6] + b"\0\0\0\0\0\0", "x.json.gz", "broken gzip"),
        (b"{}", "x.json.gz", "broken gzip"),
        (b"PAR1 no Parquet", "x.parquet", "unreadable Parquet"),
        (b"", "x.parquet", "unreadable Parquet"),
        (b"{}", "x.txt", "unknown ending"),
    ],
)
def test_what_cannot_be_read_is_set_aside_with_a_sentence(data: bytes, name: str, says: str) -> None:
    assert says in reason(data, name)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"{}\n{}\n", [(1, b"{}"), (2, b"{}")]),
        (b"{}\r\n\r\n{}", [(1, b"{}"), (3, b"{}")]),
        (b"{}\r{}\r\r{}\r", [(1, b"{}"), (2, b"{}"), (4, b"{}")]),
        (b"\n\r\n \t\n {} \n", [(4, b" {} ")]),
        (codecs.BOM_UTF8 + b"{}", [(1, b"{}")]),
        (b"{}\n\xe2\x80\xa8\n\xc2\x85\n\x0b\n", [(1, b"{}"), (2, b"\xe2\x80\xa8"), (3, b"\xc2\x85"), (4, b"\x0b")]),
        (b"{}{}\n\xff\n[1]\n", [(1, b"{}{}"), (2, b"\xff"), (3, b"[1]")]),
        (b"", []),
        (b"\n\n", []),
        (b" [ ] ", []),
        (b'\n[{"a": "]"} ,\n {"a": ["\\"", {"b": []}]}]\n', [(1, b'{"a": "]"}'), (2, b'{"a": ["\\"", {"b": []}]}')]),
        (b'[1, "a, b", oops, [2], {"a": oops},{"a":"\\\\"}]',
         [(1, b"1"), (2, b'"a, b"'), (3, b"oops"), (4, b"[2]"), (5, b'{"a": oops}'), (6, b'{"a":"\\\\"}')]),
        (codecs.BOM_UTF8 + b"[{}]", [(1, b"{}")]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 1 << 20])
def test_json_texts(data: bytes, expected: list[tuple[int, bytes]], block_bytes: int) -> None:
    assert texts(data, block_bytes=block_bytes) == expected
    assert texts(gzip.compress(data, mtime=0), "x.ndjson.gz", block_bytes) == expected


def test_gzip_members_and_padding() -> None:
    packed = gzip.compress(b"id,a\n1,", mtime=0) + gzip.compress(b"") + gzip.compress(b"x\n2,y\n") + b"\0" * 1000
    assert cells(packed, "x.csv.gz") == [X, Y]


def test_a_rejected_csv_row_keeps_all_its_cells_or_its_bytes() -> None:
    data = b'id,a,more,more,\n1,x,"y\n""",,0\n2,\xff,,,\n3\n4,a"b,,,\n'
    assert payloads(data) == [
        b'{"id": "1", "a": "x", "more": null, "": "0"}',
        b"2,\xff,,,",
        b"3",
        b'4,a"b,,,',
    ]
    assert payloads("id,a\n1,ä\n2\n".encode("utf-16")) == ['{"id": "1", "a": "ä"}'.encode(), b"2"]


def test_pieces_are_bounded_and_numbers_go_on() -> None:
    lines = b"id,a\n" + b"1,x\n" * 150_000
    pieces = list(read(io.BytesIO(lines), "x.csv", PIPELINE))
    assert sum(map(len, pieces)) == 150_000
    assert max(map(len, pieces)) <= 65_536
    assert [piece.numbers[0] for piece in pieces][1] == len(pieces[0]) + 1
    for data in (b"{}\n" * 150_000, b"[" + b"{}," * 149_999 + b"{}]"):
        assert [number for number, _ in texts(data)] == list(range(1, 150_001))


@pytest.mark.parametrize(
    ("data", "says"),
    [(b'id,a\n1,x\n2,"' + b"y\n" * 99, "row 2 is longer than 50 bytes; the quoted cell that opens in line 3"),
     (b"id,a\n1,x\n2," + b"y" * 99, "row 2 is longer than 50 bytes")],
)  # fmt: skip
def test_a_csv_row_without_end_is_not_held(data: bytes, says: str) -> None:
    with pytest.raises(SetAside, match=says):
        list(csv_rows.read(in_blocks(data, 10), set(FIELDS), max_record_bytes=50))


def in_blocks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[place : place + size] for place in range(0, len(data), size))


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"{}\n{" + b" " * 99, "line 2 is longer"), (b'[{},{"' + b" " * 99, "element 2 of the array is longer"),
     (b" " * 99, "line 1 is longer")],
)  # fmt: skip
def test_a_json_text_without_end_is_not_held(data: bytes, says: str) -> None:
    with pytest.raises(SetAside, match=says):
        list(json_texts.read(in_blocks(data, 10), max_record_bytes=50))


def test_depth_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "element 1: it has more than 1,000,000 levels" in reason(b"[" * 1_100_000, "x.json")
    for levels in (2, 5, 6, 1001):
        for deep in (b"[" * levels + b"]" * levels, b'{"a":' * levels + b"1" + b"}" * levels):
            monkeypatch.setattr(json_texts, "DEEPEST", levels)
            assert texts(b"[" + deep + b", {}]", block_bytes=3) == [(1, deep), (2, b"{}")]
            monkeypatch.setattr(json_texts, "DEEPEST", levels - 1)
            assert f"element 1: it has more than {levels - 1:,} levels" in reason(b"[" + deep + b", {}]", "x.json")


class _Failing(io.BytesIO):
    """A stream that fails some way in, like a disk or a store."""

    def __init__(self, data: bytes, error: Exception, after: int) -> None:
        super().__init__(data)
        self._error, self._after = error, after

    def read(self, size: int | None = -1, /) -> bytes:
        self._after -= 1
        if self._after < 0:
            raise self._error
        return super().read(size)


class _Away(Exception):
    """What a store's client raises."""


def _parquet(table: pa.Table, **options: str | int | bool) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O"), OSError("no number"), _Away("away"), MemoryError()])
@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.csv.gz", "x.parquet"])
def test_a_failing_stream_is_no_fault_of_the_file(name: str, after: int, error: Exception) -> None:
    text = b"id,a\n" + b"".join(b"%d,x\n" % number for number in range(9999))
    data = {
        "x.csv": text,
        "x.json": b"{}\n" * 9999,
        "x.csv.gz": gzip.compress(text, 0, mtime=0),
        "x.parquet": _parquet(
            pa.table({"id": [str(number) * 9 for number in range(9999)]}), compression="none", row_group_size=1000
        ),
    }[name]
    with pytest.raises(type(error)) as caught:
        for _ in read(_Failing(data, error, after), name, PIPELINE, block_bytes=10):
            pass
    assert caught.value is error


CODECS = ["none", "snappy", "gzip", "brotli", "lz4", "zstd"]


@pytest.mark.parametrize("codec", CODECS)
def test_parquet_of_every_codec(codec: str) -> None:
    table = pa.table({"id": ["1", "2"], "a": ["x", "y"]})
    assert cells(_parquet(table, compression=codec), "x.parquet") == [{"id": "1", "a": "x"}, {"id": "2", "a": "y"}]


def test_parquet_keeps_types_reads_only_what_is_declared_and_decodes_dictionaries() -> None:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    table = pa.table(
        {
            "big": pa.array([Decimal("1.5")], pa.decimal256(60, 3)),
            "id": pa.array(["1"]).dictionary_encode(),
            "at": pa.array([at], pa.timestamp("ns", "Asia/Dhaka")),
            "a": pa.array([{"l": [1, None]}]),
        }
    )
    (piece,) = read(io.BytesIO(_parquet(table)), "x.parquet", PIPELINE)
    assert isinstance(piece, CellRecords)
    assert {name: str(array.type) for name, array in piece.columns.items()} == {
        "id": "string",
        "at": "timestamp[ns, tz=Asia/Dhaka]",
        "a": "struct<l: large_list<item: int64>>",
    }
    payload = piece.payload(0)
    assert payload and json.loads(payload) == {
        "id": "1",
        "at": "2024-01-01T00:00:00Z",
        "a": {"l": [1, None]},
    }


def test_parquet_instants_of_the_old_kind() -> None:
    table = pa.table({"id": ["1"], "at": pa.array([datetime(2024, 1, 1, 1, 2, 3)], pa.timestamp("us"))})
    data = _parquet(table, use_deprecated_int96_timestamps=True)
    assert payloads(data, "x.parquet") == [b'{"id":"1","at":"2024-01-01T01:02:03Z"}']


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pa.array([Decimal("12345678901234567890.10")]), b"12345678901234567890.1"),
        (pa.array([Decimal("4711.00")]), b"4711"),
        (pa.array([1e16]), b"1e+16"),
        (pa.array([2**64 - 1], pa.uint64()), b"18446744073709551615"),
        (pa.array([1.5]), b"1.5"),
        (pa.array([float("nan")]), b'"nan"'),
        (pa.array([True]), b"true"),
        (pa.array([None], pa.string()), b"null"),
        (pa.array([None]), b"null"),
        (pa.array(["ä".encode()]), '"ä"'.encode()),
        (pa.array([b"\xff"]), b'"' + base64.b64encode(b"\xff") + b'"'),
        (pa.array([0], pa.date32()), b'"1970-01-01"'),
        (pa.array([2**62], pa.timestamp("us")), b'"148108-07-06T14:00:27.387904Z"'),
        (pa.array([1], pa.time64("us")), b'"00:00:00.000001"'),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), b'{"k":1}'),
        (pa.array([[(1, 1)]], pa.map_(pa.int64(), pa.int64())), b"[[1,1]]"),
    ],
)
def test_parquet_cells_as_json(value: pa.Array, expected: bytes) -> None:
    assert payloads(_parquet(pa.table({"a": value})), "x.parquet") == [b'{"a":' + expected + b"}"]


def test_parquet_texts_that_are_no_utf8_are_given_as_bytes() -> None:
    kinds = {"id": pa.string(), "a": pa.struct([("t", pa.string())])}
    broken = pa.array([b"ok", b"\xff"]).view(pa.string())
    table = pa.table({"id": broken, "a": pa.StructArray.from_arrays([broken], ["t"])}, schema=pa.schema(kinds))
    (piece,) = read(io.BytesIO(_parquet(table)), "x.parquet", PIPELINE)
    assert isinstance(piece, CellRecords)
    assert piece.columns["id"].to_pylist() == [b"ok", b"\xff"]
    assert [piece.payload(row) for row in (0, 1)] == [b'{"id":"ok","a":{"t":"ok"}}', b'{"id":"/w==","a":{"t":"/w=="}}']


def test_parquet_with_none_or_two_of_a_declared_column() -> None:
    assert "no declared column, it begins with 'x'" in reason(_parquet(pa.table({"x": [1]})), "x.parquet")
    twice = pa.table([pa.array([1]), pa.array([2])], names=["id", "id"])
    assert "has the column id more than once" in reason(_parquet(twice), "x.parquet")


def test_parquet_pages_that_have_a_checksum_keep_it() -> None:
    table = pa.table({"id": [f"{number:05}" for number in range(1000)]})
    data = _parquet(table, compression="none", use_dictionary=False, write_page_checksum=True)
    assert "CRC checksum verification failed" in reason(data.replace(b"00500", b"00501"), "x.parquet")
    assert len(cells(data, "x.parquet")) == 1000


def test_parquet_rows_are_counted() -> None:
    data = _parquet(pa.table({"id": ["1", "2"], "a": ["x", "y"]}), row_group_size=1)
    broken = data[: len(data) // 2] + data[len(data) // 2 + 9 :]
    assert "unreadable Parquet" in reason(broken, "x.parquet")
    rows = cells(_parquet(pa.table({"id": [str(number) for number in range(99)]}), row_group_size=7), "x.parquet")
    assert rows == [{"id": str(number)} for number in range(99)]


# An independent reading of CSV, character by character: slow, and plainly what docs/landing.md says.
