"""Files of any bytes, in pieces of any size: what readers make of them, beside plain readers of whole files."""

import codecs
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.test_readers import cells, texts
from twofold.readers import SetAside


class _NeverClosed(Exception):
    pass


def simple_rows(data: bytes, separator: bytes) -> Iterator[list[bytes | None] | None]:
    """Cells of each row that is not blank, None where it is malformed."""
    place = 0
    while place < len(data):
        row: list[bytes | None] = []
        faulty = False
        while True:
            begin = place
            value = b""
            state = "start"
            while True:
                char = data[place : place + 1]
                if state == "start" and char == b'"':
                    state = "quoted"
                elif state == "quoted":
                    if not char:
                        raise _NeverClosed
                    if char == b'"':
                        state = "closed"
                    else:
                        value += char
                elif state == "closed" and char == b'"':
                    value += char
                    state = "quoted"
                elif char in (separator, b"\r", b"\n", b""):
                    break
                elif char == b'"' or state == "closed":
                    faulty = True
                    break
                else:
                    value += char
                    state = "plain"
                place += 1
            if faulty:
                place = begin
                while data[place : place + 1] not in (b"\r", b"\n", b""):
                    place += 1
                place += 1
                break
            row.append(None if state == "start" else value)
            place += 1
            if char != separator:
                break
        if faulty:
            yield None
        elif row != [None] and not (len(row) == 1 and state == "plain" and not value.strip(b" \t")):
            yield row


def simple(data: bytes, separator: bytes) -> list[dict[str, bytes | None] | None]:
    return [
        dict(zip(("id", "a", "at"), row, strict=True)) if row and len(row) == 3 else None
        for row in simple_rows(data, separator)
    ]


PARTS = [b'"', b'""', b",", b";", b"\t", b"\n", b"\r", b"\r\n", b" ", b"x", b"\xff", b"\0", b'x,"y",z\n', b"1,2,3\r"]


@settings(max_examples=500)
@given(
    st.lists(st.sampled_from(PARTS), max_size=40).map(b"".join),
    st.sampled_from([b",", b";", b"\t"]),
    st.integers(1, 50),
    st.booleans(),
)
@example(b'1,"2" x"\n3,4,5\n', b",", 3, True)
def test_every_csv_record_counts_exactly_once(data: bytes, separator: bytes, block_bytes: int, marked: bool) -> None:
    file = (codecs.BOM_UTF8 if marked else b"") + separator.join([b"id", b"a", b"at"]) + b"\n" + data
    try:
        expected = simple(data, separator)
    except _NeverClosed:
        with pytest.raises(SetAside, match="is not closed"):
            cells(file, block_bytes=block_bytes)
        return
    found = [None if isinstance(row, str) else row for row in cells(file, block_bytes=block_bytes)]
    assert found == expected


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(['"', "\\", "]", "},{", '\\"']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100)
@given(st.lists(JSON_VALUES, max_size=8), st.integers(1, 50), st.sampled_from([None, 1]), st.booleans())
def test_every_element_of_an_array_is_a_record(
    values: list[Any], block_bytes: int, indent: int | None, ascii_only: bool
) -> None:
    data = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode()
    found = texts(data, block_bytes=block_bytes)
    assert [json.loads(text) for _, text in found] == values
    assert [number for number, _ in found] == list(range(1, len(values) + 1))


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["{}", "", " ", "\t", "x", "ä", "\x0b", " "]), max_size=12), st.data())
def test_every_line_counts(lines: list[str], data: st.DataObject) -> None:
    ends = [data.draw(st.sampled_from(["\n", "\r\n", "\r"])) if line else "\n" for line in lines]
    file = "".join(map("".join, zip(lines, ends, strict=True))).encode()
    expected = [(number, line.encode()) for number, line in enumerate(lines, 1) if line.strip(" \t")]
    # CR before an empty line with LF is one line end.
    joined = [(place, line) for place, (line, end) in enumerate(zip(lines, ends, strict=True)) if end == "\r"]
    if any(place + 1 < len(lines) and not lines[place + 1] for place, _ in joined):
        return
    assert texts(file, block_bytes=data.draw(st.integers(1, 20))) == expected
