"""How a moment or a day is written: ISO 8601, a count since 1970 in some unit, or a pattern as strptime's.

    format_fault("%d.%m.%Y") ─► ""         read_epoch("epoch_ms", Decimal("1772323200007.5"))
    parse("%d/%b/%Y:%H:%M:%S %z", "01/Mar/2026:02:00:01 +0200") ─► 2026-03-01T00:00:01Z

Pure, exact: no doubles on the way.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import MAX_EMAX, MIN_EMIN, ROUND_FLOOR, Context, Decimal

ISO = "iso8601"
EPOCHS = {
    "epoch_s": Decimal(1_000_000),
    "epoch_ms": Decimal(1_000),
    "epoch_us": Decimal(1),
    "epoch_ns": Decimal("0.001"),
}
"""Microseconds in one of each unit."""
EXPECTED = (
    f"`{ISO}`, {', '.join(f'`{name}`' for name in EPOCHS)}, or a pattern as of strptime, such as `%d/%b/%Y:%H:%M:%S %z`"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT = Context(prec=40, Emax=MAX_EMAX, Emin=MIN_EMIN)
_DIRECTIVES = "aAbBdfHIjmMpSyYz%"
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
_SAMPLE = datetime(2023, 11, 25, 13, 4, 5, tzinfo=UTC)


def format_fault(form: str) -> str:
    """Why a format cannot be used; empty if it can.

    >>> format_fault("%Y-%m"), format_fault("epoch_minutes")
    ('it names no day of the month', 'it has no directive such as %Y')
    """
    if form == ISO or form in EPOCHS:
        return ""
    found = _DIRECTIVE.findall(form)
    if not set(found) - {"%"}:
        return "it has no directive such as %Y"
    if unknown := [one for one in found if not one or one not in _DIRECTIVES]:
        return f"%{unknown[0]} is none of the directives {' '.join(f'%{one}' for one in _DIRECTIVES)}"
    if twice := [one for one in found if one != "%" and found.count(one) > 1]:
        return f"%{twice[0]} is there more than once"
    for what, directives in (("year", "yY"), ("month", "mbBj"), ("day of the month", "dj")):
        if not set(directives) & set(found):
            return f"it names no {what}"
    if ("I" in found) != ("p" in found):
        return "%I and %p belong together"
    try:
        # Two directives that run into each other may not be read back as what was written.
        same = parse(form, _SAMPLE.strftime(form))
    except (ValueError, re.error) as error:
        return str(error)
    return "" if same and same.date() == _SAMPLE.date() else "what it writes cannot be read back"


def parse(form: str, text: str) -> datetime | None:
    """The moment in UTC that a text of this pattern stands for, without an offset UTC; None where it is no such text.

    Names of months and days are English, in any case.
    """
    if any(character.isdigit() and not character.isascii() for character in text):
        return None
    try:
        moment = datetime.strptime(text, form)  # noqa: DTZ007 - without an offset it is UTC
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def read_epoch(form: str, number: Decimal) -> datetime | None:
    """The moment that many units after 1970, finer than a microsecond cut off; None outside the years 1 to 9999.

    >>> str(read_epoch("epoch_ms", Decimal("1772323200007.5")))
    '2026-03-01 00:00:00.007500+00:00'
    """
    if number and number.adjusted() > 20:
        return None
    # Cut off before it is multiplied: of the digits as they were sent there may be any number.
    whole = number.quantize(1 / EPOCHS[form], ROUND_FLOOR, _EXACT)
    microseconds = int(_EXACT.multiply(whole, EPOCHS[form]))
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None
