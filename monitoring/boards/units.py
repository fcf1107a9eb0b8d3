"""A number as people read it, in one of the units that panels have. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from math import isnan

_PER_SECOND = {"rps", "cps", "reqps"}


def shown(value: float, unit: str) -> str:
    """A value in a unit of Grafana's.

    >>> shown(0.0123, "percentunit"), shown(3 << 20, "bytes"), shown(95, "s"), shown(0.25, "s"), shown(-70, "s")
    ('1.23%', '3 MiB', '1 min 35 s', '250 ms', '-1 min 10 s')
    >>> shown(12_345, "short"), shown(1.5, "rps"), shown(2_000, "Bps"), shown(float("nan"), "short")
    ('12.3k', '1.5/s', '2 kB/s', '-')
    >>> shown(1_369_000_000_000, "dateTimeAsIso"), shown(12_345, "locale")
    ('2013-05-19 21:46', '12,345')
    """
    if isnan(value):
        return "-"
    if unit in _PER_SECOND:
        return f"{_scaled(value)}/s"
    return _FORMS.get(unit, _scaled)(value)


def _scaled(value: float) -> str:
    return _in(value, 1000, ("", "k", "M", "G"))


def _in(value: float, base: int, names: tuple[str, ...]) -> str:
    for name in names[:-1]:
        if abs(value) < base:
            return f"{value:.3g}{name}"
        value /= base
    return f"{value:.3g}{names[-1]}"


def _duration(seconds: float) -> str:
    if seconds < 0:
        return f"-{_duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms" if seconds else "0"
    if seconds < 60:
        return f"{seconds:.3g} s"
    for size, name, part, rest in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{seconds // size:.0f} {name} {seconds % size // part:.0f} {rest}"
    raise AssertionError(seconds)


_FORMS: dict[str, Callable[[float], str]] = {
    "s": _duration,
    "ms": lambda value: _duration(value / 1000),
    "bytes": lambda value: _in(value, 1024, (" B", " KiB", " MiB", " GiB")),
    "Bps": lambda value: _in(value, 1000, (" B/s", " kB/s", " MB/s", " GB/s")),
    "percentunit": lambda value: f"{value * 100:.3g}%",
    "dateTimeAsIso": lambda value: f"{datetime.fromtimestamp(value / 1000, UTC):%Y-%m-%d %H:%M}",
    "locale": lambda value: f"{value:,.0f}",
}
