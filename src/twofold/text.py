"""Names, counts and values as text: in SQL, in sentences, on a terminal."""

from __future__ import annotations


def quoted(name: str) -> str:
    """A name in SQL, which may be one of SQL's own words.

    >>> quoted('a "b"')
    '"a ""b""\"'
    """
    return '"' + name.replace('"', '""') + '"'


def counted(number: int, noun: str) -> str:
    """A count with its noun.

    >>> counted(1, "record"), counted(231004, "record")
    ('1 record', '231,004 records')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def printable(text: str) -> str:
    """Control characters as escapes: a value cannot move the cursor, nor break a row."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
