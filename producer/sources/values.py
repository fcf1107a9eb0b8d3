"""Random values of a field that keep its rules: pure functions of a random generator."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from rstr import Rstr

from twofold.definition.model import Field
from twofold.errors import TwofoldError

Maker = Callable[[Random, datetime], Any]
"""(random generator, event time) → a value of the field."""

POOL = 64
"""So many different values a pattern field has: a pattern is slow to satisfy."""
TRIES = 2000
SPREAD = 1000
"""Numbers without a declared bound lie within this much of the other bound, or of 0."""
WORDS = ("amber", "birch", "coral", "delta", "ember", "fjord", "grove", "haven", "indigo", "jasper", "karst", "lumen")


def maker(field: Field, seed: int) -> Maker:
    """How to make values of one field."""
    if field.one_of:
        return _choice(list(field.one_of))
    return _MAKERS[field.type.name](field, seed)


def matching(pattern: str, max_length: int | None, random: Random) -> str:
    """A text that matches the whole pattern and is short enough; raise TwofoldError if none is found."""
    texts = Rstr(random)
    for _ in range(TRIES):
        text = texts.xeger(pattern)
        if len(text) <= (max_length or len(text)) and re.fullmatch(pattern, text):
            return str(text)
    raise TwofoldError(
        f"no text found that matches {pattern!r}" + (f" within {max_length} characters" if max_length else ""),
        "declare one_of for this field, or a simpler pattern",
    )


def bounds(low: Any, high: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Both bounds of a number, the missing ones made up.

    >>> bounds(None, None), bounds(5000, None), bounds(None, -1)
    ((0, 1000), (5000, 6000), (-1001, -1))
    """
    if low is None and high is None:
        return 0, SPREAD
    return (high - SPREAD if low is None else low), (low + SPREAD if high is None else high)


def within(field: Field, value: Any) -> Any:  # noqa: ANN401
    """The value, moved to the nearest declared bound if it is outside."""
    if field.min is not None and value < field.min:
        return field.min
    return field.max if field.max is not None and value > field.max else value


def _choice(options: list[Any]) -> Maker:
    count = len(options)
    return lambda random, _at: options[int(random.random() * count)]


def _string(field: Field, seed: int) -> Maker:
    if field.pattern is not None:
        random = Random(f"{seed}:{field.name}")
        return _choice([matching(field.pattern, field.max_length, random) for _ in range(POOL)])
    return _choice([word[: field.max_length] for word in WORDS])


def _integer(field: Field, _seed: int) -> Maker:
    low, high = bounds(field.min, field.max)
    span = int(high) - int(low) + 1
    return lambda random, _at: int(low) + int(random.random() * span)


def _double(field: Field, _seed: int) -> Maker:
    low, high = bounds(field.min, field.max)
    return lambda random, _at: float(low) + random.random() * (float(high) - float(low))


def _decimal(field: Field, _seed: int) -> Maker:
    step = Decimal(1).scaleb(-field.type.scale)
    largest = (Decimal(10) ** field.type.precision - 1) * step
    low, high = bounds(field.min, field.max)
    low, high = max(Decimal(low), -largest), min(Decimal(high), largest)
    return lambda random, _at: (low + (high - low) * Decimal(random.random())).quantize(step, rounding="ROUND_DOWN")


def _boolean(_field: Field, _seed: int) -> Maker:
    return lambda random, _at: random.random() < 0.5


def _timestamp(field: Field, _seed: int) -> Maker:
    return lambda random, at: within(field, at + timedelta(seconds=int(random.random() * 3600)))


def _date(field: Field, _seed: int) -> Maker:
    return lambda _random, at: within(field, at.date())


_MAKERS: dict[str, Callable[[Field, int], Maker]] = {
    "string": _string,
    "int": _integer,
    "long": _integer,
    "double": _double,
    "decimal": _decimal,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "date": _date,
}


def identifier(field: Field, seed: int, number: int, at: datetime) -> Any:  # noqa: ANN401
    """The id of event `number`: different for each, and for each seed, as far as the field's rules leave room."""
    if field.one_of or field.type.name not in ("string", "int", "long"):
        return maker(field, seed)(Random(f"{seed}:{number}"), at)
    if field.type.name == "string":
        if field.pattern is not None:
            return matching(field.pattern, field.max_length, Random(f"{seed}:{number}"))
        return f"{seed:x}-{number:x}"[-field.max_length :] if field.max_length else f"{seed:x}-{number:x}"
    return within(field, int(field.min or 0) + number + seed * (10**12 if field.type.name == "long" else 10**7))


def iso(value: object) -> object:
    """A value as JSON has it: moments in ISO 8601, UTC, milliseconds; exact decimals as they are."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value
