"""How a CSV file writes what it has no way of its own for: nothing, true and false, the decimal sign.

12,50 in a column of numbers ─► decimal: ","       - in a column of dates ─► null_values: ["-"]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from twofold.contract.literals import TEXT, Literal
from twofold.definition.model import Files
from twofold.draft.kinds import kind_of
from twofold.draft.shapes import Column

_NOTHING = ("\\N", "NULL", "null", "NA", "N/A", "n/a", "nan", "NaN", "None", "-", "--", "?", "#N/A", "(null)")
_YES_NO = (("yes", "no"), ("y", "n"), ("t", "f"), ("on", "off"), ("ja", "nein"), ("oui", "non"))
_COMMA_NUMBER = re.compile(r"-?[0-9]+(,[0-9]+)?")
_Rewritten = Callable[[str], str | None]


def as_written(columns: Sequence[Column], files: Files) -> tuple[list[Column], Files]:
    """The columns with the file's own texts replaced, and those texts."""
    nothing = tuple(text for text in _NOTHING if any(_means_nothing(column, text) for column in columns))
    if nothing:
        columns = [_rewritten(column, lambda text: None if text in nothing else text) for column in columns]
        files = replace(files, null_values=nothing)
    columns, files = _with_point(columns, files)
    return _with_words(columns, files)


def _means_nothing(column: Column, text: str) -> bool:
    """Whether it stands where without it all values are of a type that it is not of."""
    if not any(value.text == text for value in column.found):
        return False
    others = [value for value in column.found if value.text not in _NOTHING]
    return bool(others) and kind_of(others, column.key, cells=True).type.name != "string"


def _with_point(columns: Sequence[Column], files: Files) -> tuple[Sequence[Column], Files]:
    """Numbers with a comma get a point, unless other numbers have one already."""
    commas = {column.source for column in columns if _has_commas(column)}
    has_points = any(
        kind_of(column.found, column.key, cells=True).type.name in ("double", "decimal") for column in columns
    )
    if not commas or has_points:
        return columns, files
    pointed = [
        _rewritten(column, lambda text: text.replace(",", ".")) if column.source in commas else column
        for column in columns
    ]
    return pointed, replace(files, decimal=",")


def _has_commas(column: Column) -> bool:
    texts = {value.text for value in column.found}
    return any("," in text for text in texts) and all(map(_COMMA_NUMBER.fullmatch, texts))


def _with_words(columns: Sequence[Column], files: Files) -> tuple[list[Column], Files]:
    """Columns of two words that mean true and false, in one spelling of each."""
    true: set[str] = set()
    false: set[str] = set()
    found = []
    for column in columns:
        texts = {value.text for value in column.found}
        for yes, no in _YES_NO:
            if {text.lower() for text in texts} == {yes, no}:
                true |= {text for text in texts if text.lower() == yes}
                false |= {text for text in texts if text.lower() == no}
                column = _rewritten(column, {text: str(text.lower() == yes).lower() for text in texts}.get)
        found.append(column)
    return found, replace(files, true_values=tuple(sorted(true)), false_values=tuple(sorted(false)))


def _rewritten(column: Column, text: _Rewritten) -> Column:
    new = (value and text(value.text) for value in column.values)
    return replace(column, values=[None if one is None else Literal(TEXT, one) for one in new])
