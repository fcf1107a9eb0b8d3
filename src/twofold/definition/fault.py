"""What is wrong with a pipeline file, where, and what was expected instead.

Checks never stop at the first fault: they hand each one to a `Report` and continue.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from twofold.definition.field_source import joined

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the top of the file to a value."""


@dataclass(frozen=True, order=True)
class Fault:
    """One fault. `line` counts from 1; `found` is how the value is shown, `path` is empty for the whole file."""

    file: str
    line: int
    path: str
    found: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        where = ": ".join(part for part in (f"{self.file}:{self.line}", self.path) if part)
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}: found {self.found}, expected {self.expected}{hint}"


@dataclass
class Report:
    """Collects the faults of one file; `places` has the lines of each key and of its value, from 1."""

    file: str
    places: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    _paths: set[KeyPath] = field(default_factory=set)

    def add(self, path: KeyPath, found: str, expected: str, hint: str = "", *, line: int | None = None) -> None:
        """Note one fault of the value at `path`; it starts at `line`, by default that of the value."""
        self._paths.add(path)
        self.faults.append(Fault(self.file, line or self.lines(path)[1], dotted(path), found, expected, hint))

    def add_key(self, path: KeyPath, found: str, expected: str, hint: str = "") -> None:
        """Note one fault at the line of a key, or of what lacks it."""
        self.add(path, found, expected, hint, line=self.lines(path)[0])

    def has(self, path: KeyPath) -> bool:
        """Whether a fault at or below `path` is already known."""
        return any(known[: len(path)] == path for known in self._paths)

    def lines(self, path: KeyPath) -> tuple[int, int]:
        """The lines of a key and of its value; for what the file lacks, the key's line of what would hold it."""
        if path in self.places:
            return self.places[path]
        holders = (self.places[path[:length]] for length in reversed(range(len(path))) if path[:length] in self.places)
        line, _ = next(holders, (1, 1))
        return line, line


def dotted(path: KeyPath) -> str:
    """Show a path.

    >>> dotted(("event", "fields", "origin", "one_of", 2))
    'event.fields.origin.one_of[2]'
    """
    return shortened(joined(path), 120)


def shown(value: object) -> str:
    """Show a value from a file as the reader would recognise it.

    >>> shown("abc"), shown(True), shown(None), shown([1])
    ('"abc"', 'true', 'nothing', 'a list')
    """
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case str():
            return f'"{shortened(value)}"'
        case _:
            return shortened(str(value))


def shortened(text: str, length: int = 60) -> str:
    """One line of at most `length` characters, free of control characters."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()
    return line if len(line) <= length else line[: length - 1] + "…"


def near_miss(word: str, known: Iterable[str]) -> str:
    """A hint naming the known word most like `word`, or nothing.

    >>> near_miss("filtr", ["filter", "name"])
    'did you mean "filter"?'
    """
    matches = difflib.get_close_matches(word.lower()[:80], list(known), n=1, cutoff=0.6)
    return f'did you mean "{matches[0]}"?' if matches else ""


def one_of(words: Iterable[str]) -> str:
    """`a`, `a or b`, `one of a, b, c`, for the expected part of a fault."""
    listed = list(words)
    return " or ".join(listed) if len(listed) <= 2 else f"one of {', '.join(listed)}"
