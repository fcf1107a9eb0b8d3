"""JSON files: one object a line, or one array whose elements are the records.

    first byte that is no blank ─┬ [ ───► elements, by commas at depth one; strings and nested brackets are honoured
                                 └ else ─► lines, by LF, CRLF or CR

Only where records begin and end is found here; whether a record is JSON is for the contract to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from twofold.contract.records import JsonRecords
from twofold.readers.texts import MAX_RECORD_BYTES, PIECE_BYTES, RECORDS_A_PIECE, SetAside, Text

_BLANKS = b" \t\r\n"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_PLAIN = rb'[^"{}\[\]]*+(?:' + _STRING + rb'[^"{}\[\]]*+)*+'
# Up to the next bracket or, between elements, comma; strings are passed over whole.
_TO_MARK = re.compile(rb'[^"{}\[\],]*+(?:' + _STRING + rb'[^"{}\[\],]*+)*+([{}\[\],])', re.DOTALL)
_TO_BRACKET = re.compile(_PLAIN + rb"([{}\[\]])", re.DOTALL)
# Objects and arrays without brackets in them are passed over whole, too: of millions within one element nearly all.
_OVER_FLAT = re.compile(
    _PLAIN + rb"(?:(?:\[" + _PLAIN + rb"\]|\{" + _PLAIN + rb"\})" + _PLAIN + rb")*+([{}\[\]])", re.DOTALL
)
# An object without brackets in it and what follows it: most elements, in one go.
_FLAT = re.compile(rb"[ \t\r\n]*+(\{" + _PLAIN + rb"\})[ \t\r\n]*+([,\]])", re.DOTALL)
_FOLLOWS = re.compile(rb"[ \t\r\n]*+(.?)", re.DOTALL)
_SCALAR = re.compile(_STRING + rb'|[^"\s]++', re.DOTALL)
_CLOSES = {b"{": b"}", b"[": b"]"}
DEEPEST = 1_000_000
"""Levels of an element whose end is looked for, as each costs time, and brackets alone compress to nothing."""


def read(blocks: Iterator[bytes], *, max_record_bytes: int = MAX_RECORD_BYTES) -> Iterator[JsonRecords]:
    """All records, numbered by their lines or as elements, from 1; SetAside where one array has no sound form."""
    text = Text(blocks, max_record_bytes)
    while True:
        text.more()
        begins = text.data.lstrip(_BLANKS)
        _check_lines(text, text.data.removesuffix(begins))
        if begins or text.final:
            break
        text.drop(_after_last_line(text.view()))
    if begins.startswith(b"["):
        text.drop(text.data.index(b"[") + 1)
        yield from _elements(text)
    else:
        yield from _lines(text)


def _after_last_line(view: bytes) -> int:
    return max(view.rfind(b"\n"), view.rfind(b"\r")) + 1


def _check_lines(text: Text, data: bytes) -> None:
    """That no line of what begins the text is too long, whether it ends there or not."""
    for number, line in enumerate(data.splitlines() if len(data) > text.max_record_bytes else [], 1):
        if len(line) > text.max_record_bytes:
            raise SetAside(
                f"line {text.lines_before + number} is longer than {text.max_record_bytes} bytes: "
                "put one object on each line, or one array in the file"
            )


def _lines(text: Text) -> Iterator[JsonRecords]:
    while True:
        _check_lines(text, text.data)
        view = text.view()
        end = len(view) if text.final else _after_last_line(view)
        yield from _records_of(view[:end], text.lines_before + 1)
        text.drop(end)
        if text.final:
            return
        text.more()


def _records_of(whole_lines: bytes, number: int) -> Iterator[JsonRecords]:
    if b"\r" in whole_lines:
        whole_lines = whole_lines.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = whole_lines.split(b"\n")
    values = [line for line in lines if line.strip(b" \t")]
    numbers: Sequence[int] = range(number, number + len(values))
    if len(values) < len(lines) - (not lines[-1]):
        numbers = [place for place, line in enumerate(lines, number) if line.strip(b" \t")]
    for first in range(0, len(values), RECORDS_A_PIECE):
        end = first + RECORDS_A_PIECE
        yield JsonRecords(values[first:end], numbers[first:end])


class _Element(NamedTuple):
    value: bytes
    after: int
    is_last: bool


def _elements(text: Text) -> Iterator[JsonRecords]:
    number = 1
    is_last = False
    while not is_last:
        values: list[bytes] = []
        position = 0
        while not is_last and len(values) < RECORDS_A_PIECE and position < PIECE_BYTES:
            found = _element_at(text.data, position, number + len(values), text.final)
            if (found.after - 1 if found else len(text.view())) - position > text.max_record_bytes:
                limit = f"longer than {text.max_record_bytes} bytes"
                raise SetAside(f"element {number + len(values)} of the array is {limit}: split it")
            if found is None:
                break
            value, after, is_last = found
            if value:
                values.append(value)
            position = after
        if values:
            yield JsonRecords(values, range(number, number + len(values)))
        number += len(values)
        text.drop(position)
        if not position:
            text.more()
    while not text.data.strip(_BLANKS):
        text.drop(len(text.data))
        if text.final:
            return
        text.more()
    raise SetAside(
        "broken JSON array: something follows its end; put one array in the file, or one object on each line"
    )


def _element_at(data: bytes, position: int, number: int, final: bool) -> _Element | None:
    """The element that begins there, and what follows its comma or bracket; None where more must be read first.

    >>> _element_at(b' {"a": "]"} , 2]', 0, 1, True)
    _Element(value=b'{"a": "]"}', after=13, is_last=False)
    """
    if flat := _FLAT.match(data, position):
        return _Element(flat[1], flat.end(), flat[2] == b"]")
    mark = _TO_MARK.match(data, position)
    if mark is None:
        return _not_yet(number, final)
    before = data[position : mark.start(1)].strip(_BLANKS)
    if mark[1] in _CLOSES:
        if before:
            raise _broken(number, "a comma is missing in it")
        return _container(data, mark, number, final)
    if mark[1] == b"}":
        raise _broken(number, "a bracket is closed that was not opened")
    is_last = mark[1] == b"]"
    if not before and not (is_last and number == 1):
        raise _broken(number, "there is nothing between two commas, or before the closing bracket")
    if before and not _SCALAR.fullmatch(before):
        raise _broken(number, "a comma is missing in it")
    return _Element(before, mark.end(), is_last)


def _container(data: bytes, opening: re.Match[bytes], number: int, final: bool) -> _Element | None:
    """An object or array, to the bracket that closes it and the comma or bracket after it."""
    awaited = bytearray(_CLOSES[opening[1]])  # a byte a level, as there may be millions
    end = opening.end()
    while awaited:
        bracket = (_OVER_FLAT if len(awaited) < DEEPEST else _TO_BRACKET).match(data, end)
        if bracket is None:
            return _not_yet(number, final)
        end = bracket.end()
        if bracket[1] in _CLOSES:
            awaited += _CLOSES[bracket[1]]
            if len(awaited) > DEEPEST:
                raise _broken(number, f"it has more than {DEEPEST:,} levels")
        elif awaited.pop() != bracket[1][0]:
            raise _broken(number, "its brackets do not match")
    follows = _FOLLOWS.match(data, end)
    if follows is None or not follows[1]:
        return _not_yet(number, final)
    if follows[1] not in (b",", b"]"):
        raise _broken(number, "no comma follows it")
    return _Element(data[opening.start(1) : end], follows.end(), follows[1] == b"]")


def _not_yet(number: int, final: bool) -> _Element | None:
    if final:
        raise _broken(number, "the file ends within it, or before the array is closed")
    return None


def _broken(number: int, why: str) -> SetAside:
    return SetAside(f"broken JSON array: element {number}: {why}; fix the array, or put one object on each line")
