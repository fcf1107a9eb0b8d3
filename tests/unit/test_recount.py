"""Records of landed files, counted apart from the product's readers: the same number however the text is cut."""

from __future__ import annotations

import csv
import gzip
import io
import random
from pathlib import Path

import pytest

from twofold.definition.model import Files
from twofold.inbox import LocalFolder
from twofold.proof import recount
from twofold.proof.recount import Irregular
from twofold.readers import json_texts

FIELDS = {"id", "at", "a"}
AT = "2024-01-01T00:00:00Z"

CSV = [
    ("LF", f"id,at,a\nx,{AT},1\ny,{AT},2\n", 2),
    ("CRLF, without a last row end", f"id,at,a\r\nx,{AT},1\r\ny,{AT},2", 2),
    ("CR, with a line feed in quotes", f'id,at,a\rx,{AT},"line 1\nline 2"\ry,{AT},z\r', 2),
    ("all row ends mixed", f"id,at,a\rx,{AT},1\ny,{AT},2\r\nz,{AT},3\n\r", 3),
    ("blank lines are no rows", f"\n \nid,at,a\n\n\nx,{AT},1\n \t\n\r\n", 1),
    ("cells of nothing are a row", "id,at,a\n,,\n", 1),
    ("in one column, blanks are a row", "id\n \n\nx\n", 2),
    ("doubled quotes", f'id,at,a\nx,{AT},"say ""a\nb"""\ny,{AT},""\n', 2),
    ("a header over two lines", f'id,at,"a","two\nlines"\nx,{AT},1,2\n', 1),
    ("semicolons", f"id;at;a\nx;{AT};1,5\n", 1),
    ("tabs", f"id\tat\ta\nx\t{AT}\t1\n", 1),
    ("tabs between cells of nothing are a row, blanks are none", "id\tat\ta\n\t\t\n \n", 1),
    ("a quote within quotes is of its row alone", f'id,at,a\nx,{AT},"5" pipe"\ny,{AT},next\nz,{AT},last\n', 3),
    ("a quote closed rows later ends its row, too", f'id,at,a\nx,"5 inch\ny,{AT},"6"\n', 2),
    ("a quote within a cell", f'id,at,a\nx,{AT},5" pipe\ny,{AT},next\n', 2),
    ("rows too long and too short", f"id,at,a\nx,{AT}\ny,{AT},1,2\n", 2),
    ("a header alone", "id,at,a\n", 0),
]
JSON = [
    ("LF", '{"id": 1}\n{"id": 2}\n', 2),
    ("CRLF", '{"id": 1}\r\n\r\n{"id": 2}', 2),
    ("CR", '{"id": 1}\r{"id": 2}\r', 2),
    ("two objects on a line are one record", '{"id": 1}{"id": 2}\n{"id": 3}', 2),
    ("only blanks and tabs are blank", '{"id": 1}\n\u2028\n \t\n\x0b\n', 3),
    ("an array on a line", '[{"id": 1},{"id": "],["},{"id": "\\"]"}]', 3),
    ("an array, pretty", '\n [\n  {\n    "id": [1, [2]]\n  },\n  "x",\n  7\n]\n', 3),
    ("a broken element that ends", '[{"id": 1},\n{"id": oops},\n{"id": 3}]', 3),
    ("an empty array", "[ ]\n", 0),
    ("nothing", " \n\t\r\n", 0),
]
TEXTS = [("x.csv", CSV), ("x.json", JSON)]
UNCOUNTABLE = [
    ("x.csv", f'id,at,a\nx,{AT},"never\ny,{AT},1\n', "a quote is never closed"),
    ("x.csv", "key,value\n1,2\n", "no declared column"),
    ("x.json", '[{"id": 1} {"id": 2}]', "no comma after element 1 of the array"),
    ("x.json", '[7 {"id": 2}]', "no comma after element 1 of the array"),
    ("x.json", '[{"id": 1},]', "element 2 of the array is missing"),
    ("x.json", '[{"id": 1}', "the array never ends"),
    ("x.json", '[{"id": "1}]', "a string never ends"),
    ("x.json", '[{"id": 1]}', "element 1 of the array has brackets that do not match"),
    ("x.json", '[{"id": 1}]\n[2]', "something follows the array"),
]


def counted(folder: Path, name: str, content: bytes, block: int = recount.BLOCK_CHARACTERS) -> int:
    (folder / name).write_bytes(content)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(recount, "BLOCK_CHARACTERS", block)
        return recount.records(LocalFolder(folder), name, FIELDS, Files())


@pytest.mark.parametrize("block", [1, 2, 7, recount.BLOCK_CHARACTERS])
@pytest.mark.parametrize(
    ("name", "text", "number"),
    [pytest.param(name, text, number, id=f"{name}: {what}") for name, cases in TEXTS for what, text, number in cases],
)
def test_records_are_counted_by_the_documented_rules_in_every_encoding(
    tmp_path: Path, name: str, text: str, number: int, block: int
) -> None:
    found = {
        encoding: counted(tmp_path, name, text.encode(encoding), block) for encoding in ("utf-8", "utf-8-sig", "utf-16")
    }
    found["without a mark"] = counted(tmp_path, name, text.encode("utf-16-le"), block)
    members = gzip.compress(text[:5].encode()) + gzip.compress(text[5:].encode()) + bytes(512)
    found["gzip"] = counted(tmp_path, f"{name}.gz", members, block)
    assert found == dict.fromkeys(found, number)


def test_zeros_before_what_no_json_file_begins_with_are_a_lines_own_fault(tmp_path: Path) -> None:
    assert counted(tmp_path, "x.json", "x\ny".encode("utf-16-le")) == 2
    assert counted(tmp_path, "y.json", "x\r\ny".encode("utf-16-le")) == 3


@pytest.mark.parametrize(("name", "text", "why"), UNCOUNTABLE, ids=[case[2] for case in UNCOUNTABLE])
def test_what_cannot_be_counted_says_why(tmp_path: Path, name: str, text: str, why: str) -> None:
    for block in (3, recount.BLOCK_CHARACTERS):
        with pytest.raises(Irregular, match=why):
            counted(tmp_path, name, text.encode(), block)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("x.csv", "id,at\n".encode("utf-32"), "UTF-32"),
        ("x.csv", "id,at\n".encode("utf-32-be"), "UTF-32"),
        ("x.csv.gz", gzip.compress(b"id,at\n" * 1000, mtime=0)[:-9], "broken gzip"),
        ("x.csv.gz", gzip.compress(b"id,at\n", mtime=0) + b"junk", "broken gzip"),
        ("x.parquet", b"PAR1 and no more", "Parquet"),
        ("x.txt", b"id\n", "unknown ending"),
    ],
)
def test_bytes_that_cannot_be_read_say_why(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    with pytest.raises(Irregular, match=why):
        counted(tmp_path, name, content)


def test_tables_written_by_python_are_counted_whatever_their_cells(tmp_path: Path) -> None:
    rng = random.Random(20240101)
    for _ in range(200):
        rows = [
            ["".join(rng.choices('ab ,;\t"\r\n', k=rng.randrange(6))) for _ in range(3)]
            for _ in range(rng.randrange(9))
        ]
        separator, row_end = rng.choice(",;\t"), rng.choice(["\n", "\r", "\r\n"])
        text = io.StringIO()
        writer = csv.writer(text, delimiter=separator, lineterminator=row_end, quoting=csv.QUOTE_ALL)
        writer.writerows([["id", "at", "a"], *rows])
        found = counted(tmp_path, "x.csv", text.getvalue().encode(), rng.randrange(1, 40))
        assert found == len(rows), text.getvalue()


def test_depth_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recount.DEEPEST == json_texts.DEEPEST
    monkeypatch.setattr(recount, "DEEPEST", 5)
    for block in (1, recount.BLOCK_CHARACTERS):
        assert counted(tmp_path, "x.json", b"[" * 6 + b"]" * 5 + b", {}]", block) == 2
        for text in (b"[" * 7, b"[" * 7 + b"]" * 6 + b", {}]"):
            with pytest.raises(Irregular, match="element 1 of the array is too deep"):
                counted(tmp_path, "x.json", text, block)


TOO_LONG = [
    ("x.csv", 'id,at\nx,"{}"\nz,1\n', 2, "a row"),
    ("x.csv", 'id,at\nx,"\n{}"\nz,1\n', 2, "a row"),
    ("x.csv", "id,at\nx,{}\nz,1\n", 2, "a row"),
    ("x.json", '{{"a": "{}"}}\n', 1, "line 1"),
    ("x.json", '\n{{"a": 1}}\n["{}"]\n', 2, "line 3"),
    ("x.json", '[1, "{}"]', 2, "a string"),
    ("x.json", "[1, {}]", 2, "element 2 of the array"),
    ("x.json.gz", '{{"a": "{}"}}\n', 1, "line 1"),
]


@pytest.mark.parametrize(("name", "text", "records", "what"), TOO_LONG, ids=[case[1][:20] for case in TOO_LONG])
def test_what_goes_on_for_too_long_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, records: int, what: str
) -> None:
    monkeypatch.setattr(recount, "LONGEST", 1000)

    def content(size: int) -> bytes:
        plain = text.format("y" * size).encode()
        return gzip.compress(plain) if name.endswith(".gz") else plain

    assert counted(tmp_path, name, content(900), 100) == records
    with pytest.raises(Irregular, match=f"({what}) is too long"):
        counted(tmp_path, name, content(5000), 100)


@pytest.mark.parametrize("lines", [b"y\n", b'y\n","'], ids=["one cell", "many cells"])
def test_a_row_over_many_lines_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: bytes
) -> None:
    monkeypatch.setattr(recount, "LONGEST", 1000)
    assert counted(tmp_path, "x.csv", b'id,at\nx,"' + lines * 150 + b'"\nz,1\n', 100) == 2
    with pytest.raises(Irregular, match="a row is too long"):
        counted(tmp_path, "x.csv", b'id,at\nx,"' + lines * 2000 + b'"\nz,1\n', 100)


def test_an_array_on_one_line_may_be_as_long_as_it_likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recount, "LONGEST", 1000)
    assert counted(tmp_path, "x.json", b"[" + b'{"a": [1, 2]}, ' * 9999 + b"0]", 100) == 10_000
