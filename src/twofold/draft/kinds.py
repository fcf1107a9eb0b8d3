"""What type a column of a sample has: the first of a list that the contract itself reads (nearly) all its values as.

["1772323200007", …] named `ts` ─► timestamp, epoch_ms          ["12.50", "9"] ─► decimal(18,4)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Context, Decimal

from twofold.contract.literals import BEYOND, BOOLEAN, NUMBER, OTHER, TEXT, Literal, NotOfType, read_value
from twofold.definition.time_formats import EPOCHS, ISO
from twofold.definition.types import FieldType
from twofold.text import counted


def vocabulary(listed: str) -> frozenset[str]:
    """Words that names are held against."""
    return frozenset(listed.split())


PATTERNS = (
    "%d/%b/%Y:%H:%M:%S %z", "[%d/%b/%Y:%H:%M:%S %z]",
    "%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S GMT", "%a %b %d %H:%M:%S %z %Y",
    "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%d %H:%M:%S %z", "%Y-%m-%d %H:%M:%S.%f %z",
    "%Y-%m-%d %H:%M:%S UTC", "%Y-%m-%d %H:%M:%S.%f UTC", "%Y-%m-%d %H:%M:%S,%f", "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p", "%d-%b-%Y %H:%M:%S",
    "%b %d, %Y %H:%M:%S", "%Y%m%dT%H%M%SZ", "%Y%m%d%H%M%S",
)  # fmt: skip
"""Of moments, as strptime writes them; where days and months could both come first, days do."""
DAY_PATTERNS = ("%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%Y%m%d")
TIME_WORDS = vocabulary(
    "time times timestamp ts date datetime day at on when created updated modified changed occurred happened sent "
    "received start started end ended begin finish finished expires expiry since until epoch ms millis us micros ns "
    "nanos published pushed closed merged opened logged recorded measured seen due joined "
    "placed ordered paid shipped delivered registered"
)
"""A number counts as a moment only where its name has one of these: ids look alike."""
EXACT_WORDS = vocabulary("price amount total cost fee balance qty quantity volume rate value sum tax")
"""A number in quotes is an exact number only where its name has one of these, else a name such as a version."""
CODE_WORDS = vocabulary("id uuid guid key code ean gtin barcode sku phone number no nr ref serial")
_PLAUSIBLE = (Decimal(946_684_800_000_000), Decimal(4_102_444_800_000_000))
"""From 2000 to 2100, in microseconds."""
_LIKELY = (Decimal(1_262_304_000_000_000), Decimal(2_051_222_400_000_000))
"""From 2010 to 2035: a number in a fine unit is a moment of then whatever its name, unless that says it is a code."""
_FEW, _FEW_TIMES, _FEW_OTHERS = 50, 4, 8
_MOST_DIGITS = 4
_COUNT = re.compile(r"[0-9]+(\.[0-9]+)?([eE]\+?[0-9]{1,2})?")
"""Java writes a double as 1.7723232E9."""
_MINUS_ZERO = re.compile(r"-0+(\.0+)?([eE].*)?")
"""Of no whole number: what computes with doubles writes it so."""
_PADDED = re.compile(r"-?0[0-9]+(\.[0-9]+)?")
_BELOW_MICROSECONDS = re.compile(r"\.[0-9]{6}0*[1-9]")
CUT_OFF = "finer than a microsecond in the sample: such digits are cut off"
_QUIET = Context(traps=[])
"""What has more digits in its exponent than a decimal can have is no number, and so lost."""
_TIMESTAMP, _DATE = FieldType("timestamp"), FieldType("date")


@dataclass(frozen=True)
class Kind:
    """A type, how its values are written, and what a person should know about the choice."""

    type: FieldType
    format: str = ISO
    note: str = ""
    lost: frozenset[Literal] = frozenset()
    """Values of the sample that are not of this type."""


_STRING = Kind(FieldType("string"))


def words(name: str) -> list[str]:
    """The words of a key, in lower case.

    >>> words("createdAt"), words("HTTP_status-2"), words("@timestamp")
    (['created', 'at'], ['http', 'status', '2'], ['timestamp'])
    """
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)]


def nearly(failed: int, count: int, few: int = 8) -> bool:
    """Whether so few of all fail that they are exceptions: one in a hundred, or a single one of at least `few`."""
    return failed * 100 <= count or (failed == 1 and count >= few)


def kind_of(values: Sequence[Literal], name: str, *, cells: bool = False) -> Kind:
    """The type of values, none of them null; `cells` of a CSV file have no quotes that tell texts from numbers."""
    if not values:
        return replace(_STRING, note="no value in the sample: its type is a guess")
    forms = Counter(value.form for value in values)
    if OTHER in forms:
        return Kind(FieldType("json"), note="" if len(forms) == 1 else "arrays or objects, and other values")
    distinct = Counter(values)
    some = values[:_FEW]
    for kind in _candidates(some, distinct, forms, set(words(name)), cells):
        # Texts of one form are moments, even where one of them has no such day.
        few = _FEW_TIMES if kind.type in (_TIMESTAMP, _DATE) else _FEW_OTHERS
        if not nearly(_misfits(kind, Counter(some)).total(), len(some), few):
            continue
        if nearly((odd := _misfits(kind, distinct)).total(), len(values), few):
            return _losing(_noted(kind, list(distinct)), odd, len(values))
    note = "texts, and other values" if len(forms.keys() - {BEYOND}) > 1 else ""
    return _losing(replace(_STRING, note=note), distinct, len(values))


def held(declared: FieldType, values: Sequence[Literal]) -> Kind:
    """The type that a file says itself of values, none of them null; a string where that gives back many more."""
    odd = _misfits(Kind(declared), Counter(values))
    if nearly(odd.total(), len(values)) or _misfits(_STRING, odd):
        return _losing(Kind(declared), odd, len(values))
    return replace(_STRING, note=_said(odd, len(values), f"no {declared}"))


def fits(kind: Kind, value: Literal) -> bool:
    """Whether the contract reads the value as this type."""
    try:
        read_value(kind.type, value, kind.format)
    except NotOfType:
        return False
    return True


def _misfits(kind: Kind, values: Counter[Literal]) -> Counter[Literal]:
    return Counter({value: count for value, count in values.items() if not fits(kind, value)})


def _losing(kind: Kind, values: Counter[Literal], count: int) -> Kind:
    """The kind with those of the values that are not of it, which are said."""
    odd = _misfits(kind, values)
    return replace(also(kind, _said(odd, count, "none")), lost=frozenset(odd)) if odd else kind


def _said(odd: Counter[Literal], count: int, what: str) -> str:
    return f"{odd.total()} of {count} are {what}: {next(iter(odd)).text[:40]!r}"


def _candidates(
    some: Sequence[Literal], distinct: Iterable[Literal], forms: Counter[str], named: set[str], cells: bool
) -> Iterator[Kind]:
    """What the values may be, most telling first; `some` of them tell moments, all of them numbers."""
    yield Kind(FieldType("boolean"))
    # The next version may be called otherwise.
    if forms[BOOLEAN] or ("version" in named and not forms[NUMBER]):
        return
    is_time = bool(named & TIME_WORDS)
    unit = _unit(some, _PLAUSIBLE if is_time else _LIKELY)
    if unit and (is_time or (unit != "epoch_s" and not named & CODE_WORDS)):
        yield Kind(_TIMESTAMP, unit, note="" if forms[NUMBER] else "a number in quotes")
    yield Kind(_DATE)
    yield Kind(_TIMESTAMP)
    if is_time or not all(value.text.isdigit() for value in some):
        yield from (Kind(_DATE, pattern) for pattern in DAY_PATTERNS)
        yield from (Kind(_TIMESTAMP, pattern) for pattern in PATTERNS)
    # As codes have them, whose zeros a number would lose.
    if any(_PADDED.fullmatch(value.text) for value in distinct):
        return
    if forms[NUMBER] or cells:
        if not any(_MINUS_ZERO.fullmatch(value.text) for value in distinct):
            yield Kind(FieldType("long"))
        yield Kind(FieldType("double"))
    elif named & EXACT_WORDS:
        yield Kind(FieldType("double"), note="a number in quotes")


def _unit(some: Iterable[Literal], span: tuple[Decimal, Decimal]) -> str:
    """The unit in which all the numbers, zeros aside, are moments of a span; empty if there is none."""
    try:
        numbers = [Decimal(value.text) for value in some if _COUNT.fullmatch(value.text)]
        numbers = [number for number in numbers if number]
        low, high = min(numbers), max(numbers)
    except ValueError:
        return ""
    return next((unit for unit, size in EPOCHS.items() if span[0] <= low * size and high * size < span[1]), "")


def _noted(kind: Kind, values: Sequence[Literal]) -> Kind:
    """A double as what keeps all digits of the values, where that can be; and what to look at."""
    swapped = replace(kind, format=kind.format.replace("%d/%m", "%m/%d"))
    if swapped != kind and all(fits(swapped, value) for value in values):
        return also(kind, f"or {swapped.format!r}: the sample does not tell")
    if kind.type == _TIMESTAMP and any(fits(kind, value) and _is_cut(kind, value.text) for value in values):
        return also(kind, CUT_OFF)
    return _exact(kind, [value.text for value in values if fits(kind, value)]) if kind.type.name == "double" else kind


def also(kind: Kind, said: str) -> Kind:
    """The kind with one more thing that a person should know."""
    return replace(kind, note="; ".join(filter(None, (kind.note, said))))


def _is_cut(kind: Kind, text: str) -> bool:
    """Whether a moment has digits that microseconds do not hold."""
    unit = EPOCHS.get(kind.format)
    return bool(Decimal(text, _QUIET) * unit % 1 if unit else _BELOW_MICROSECONDS.search(text))


def _exact(kind: Kind, texts: Sequence[str]) -> Kind:
    """A decimal with room for two more digits than the sample has: a digit too many rejects its record.

    Where a double would lose digits and no decimal holds them, a string, or a double if those are exceptions.
    """
    numbers = [Decimal(text, _QUIET) for text in texts]
    lost = [text for text, number in zip(texts, numbers, strict=True) if Decimal(repr(float(text))) != number]
    digits = max([0, *(-int(number.as_tuple().exponent) for number in numbers if number.is_finite())])
    room = 38 - digits - max([1, *(number.adjusted() + 1 for number in numbers if number)])
    said = f"exact; at most {digits} after the point in the sample, `double` takes any" if digits else "beyond 64 bits"
    sizes = [(18, 4 if digits <= 2 else 6)] if 0 < digits <= _MOST_DIGITS else []
    if room >= 0 and (lost or not digits):
        sizes.append((38, digits + min(room // 2, 2) if digits else 0))
    is_computed = any(_MINUS_ZERO.fullmatch(text) or (not lost and "e" in text.lower()) for text in texts)
    for precision, scale in sizes if not is_computed else ():
        decimal = FieldType("decimal", precision, scale)
        if all(fits(Kind(decimal), Literal(TEXT, text)) for text in texts):
            return also(Kind(decimal, note=kind.note), said)
    if not lost:
        return kind
    said = f"a double loses digits of {counted(len(lost), 'value')} of the sample, as of {lost[0][:50]}"
    few = nearly(len(lost), len(texts))
    return also(kind, f"{said}; `string` keeps them") if few else replace(_STRING, note=said)


def moment(kind: Kind, value: Literal) -> datetime | None:
    """The moment in UTC that a value of a timestamp or date stands for; None where it is none."""
    try:
        found: datetime = read_value(_TIMESTAMP, value, kind.format)
    except NotOfType:
        return None
    return found
