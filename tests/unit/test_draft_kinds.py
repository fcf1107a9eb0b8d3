"""What type a column gets in a draft, by the values of a sample."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.contract.literals import BOOLEAN, NUMBER, OTHER, TEXT, Literal, read_value
from twofold.definition.time_formats import format_fault
from twofold.draft import kinds

MARCH = 1_772_323_200


def numbers(kind: str, *texts: str) -> list[Literal]:
    return [Literal(kind, text) for text in texts]


KINDS: list[tuple[str, list[Literal], bool, str]] = [
    ("n", numbers(NUMBER, "1", "-5"), False, "long"),
    ("n", numbers(NUMBER, "1", "2.5"), False, "decimal(18,4)"),
    ("n", numbers(NUMBER, "1.123", "2"), False, "decimal(18,6)"),
    ("n", numbers(NUMBER, "1.12345"), False, "double"),
    ("n", numbers(NUMBER, "1e5", "2.5"), False, "double"),
    ("n", numbers(NUMBER, "9223372036854775808"), False, "decimal(38,0)"),
    ("id", numbers(TEXT, "17", "18"), False, "string"),
    ("version", numbers(TEXT, "1.10", "1.9"), False, "string"),
    ("price", numbers(TEXT, "1.10", "0.5"), False, "decimal(18,4)"),
    ("n", numbers(TEXT, "17", "18"), True, "long"),
    ("zip", numbers(TEXT, "01723", "80331"), True, "string"),
    ("count", numbers(TEXT, *["1"] * 999, "08:00"), True, "long"),
    ("ok", numbers(BOOLEAN, "true"), False, "boolean"),
    ("ok", numbers(TEXT, "true", "FALSE"), True, "boolean"),
    ("ts", numbers(NUMBER, str(MARCH)), False, "timestamp epoch_s"),
    ("ts", numbers(NUMBER, f"{MARCH}.25", "0"), False, "timestamp epoch_s"),
    ("user_id", numbers(NUMBER, str(MARCH)), False, "long"),
    ("x", numbers(NUMBER, f"{MARCH}000"), False, "timestamp epoch_ms"),
    ("ean", numbers(NUMBER, f"{MARCH}000"), False, "long"),
    ("sentAt", numbers(TEXT, f"{MARCH}000000"), False, "timestamp epoch_us"),
    ("t_ns", numbers(NUMBER, f"{MARCH}000000000"), False, "timestamp epoch_ns"),
    ("at", numbers(TEXT, "2026-03-01T00:00:00Z", "2026-03-01"), False, "timestamp"),
    ("at", numbers(TEXT, "2026-03-01"), False, "date"),
    ("x", numbers(TEXT, "01/Mar/2026:00:00:00 +0000"), False, "timestamp %d/%b/%Y:%H:%M:%S %z"),
    ("x", numbers(TEXT, "2026-03-01T00:00:00+0100"), False, "timestamp %Y-%m-%dT%H:%M:%S%z"),
    ("x", numbers(TEXT, "31.03.2026"), False, "date %d.%m.%Y"),
    ("x", numbers(TEXT, "12/31/2026 10:00:00"), False, "timestamp %m/%d/%Y %H:%M:%S"),
    ("at", numbers(TEXT, *["2026-03-01T00:00:00Z"] * 4, "nie"), False, "timestamp"),
    ("x", numbers(TEXT, "a", "2026-03-01"), False, "string"),
    ("x", [*numbers(NUMBER, "1"), *numbers(TEXT, "a")], False, "string"),
    ("x", [*numbers(OTHER, "[]"), *numbers(TEXT, "a")], False, "json"),
    ("x", [], False, "string"),
    ("n", numbers(NUMBER, "123456789" * 5), False, "string"),
    ("n", numbers(NUMBER, f"0.{'1234567890' * 4}"), False, "string"),
    ("n", numbers(NUMBER, "0.12345678901234567890", "-17"), False, "decimal(38,22)"),
    ("n", numbers(NUMBER, "9007199254740993", "2.5"), False, "decimal(38,3)"),
    ("n", numbers(NUMBER, "1e-400"), False, "string"),
    ("n", numbers(NUMBER, "1e-400", *(f"{n}.5e-9" for n in range(1, 9))), False, "double"),
    ("n", numbers(NUMBER, "-0.0"), False, "double"),
    ("n", numbers(NUMBER, *map(str, range(200)), "-0.0"), False, "double"),
    ("n", numbers(TEXT, "-0", "1.5"), True, "double"),
    ("zip", numbers(TEXT, *["80331"] * 60, "01723"), True, "string"),
    ("zip", [*numbers(NUMBER, "80331"), *numbers(TEXT, "01723")], False, "string"),
]


@pytest.mark.parametrize(("name", "values", "cells", "expected"), KINDS)
def test_kinds(name: str, values: list[Literal], cells: bool, expected: str) -> None:
    found = kinds.kind_of(values, name, cells=cells)
    assert f"{found.type} {found.format}".removesuffix(" iso8601") == expected


numbers_as_written = st.from_regex(r"-?(0|[1-9][0-9]{0,44})(\.[0-9]{1,44})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@given(st.lists(numbers_as_written, min_size=1, max_size=9), st.sampled_from([NUMBER, TEXT]))
def test_no_type_loses_digits_unsaid(texts: list[str], form: str) -> None:
    found = kinds.kind_of(numbers(form, *texts), "id", cells=True)
    given_back = {text: read_value(found.type, Literal(form, text)) for text in texts if fits(found, form, text)}
    lost = [text for text, value in given_back.items() if Decimal(str(value)) != Decimal(text)]
    assert not lost or found.note.startswith("a double loses digits"), found


def fits(kind: kinds.Kind, form: str, text: str) -> bool:
    return kinds.fits(kind, Literal(form, text))


@pytest.mark.parametrize(
    ("values", "is_cut"),
    [
        (numbers(NUMBER, f"{MARCH}000000007"), True),
        (numbers(NUMBER, f"{MARCH}000007000"), False),
        (numbers(NUMBER, f"{MARCH}.1234567"), True),
        (numbers(TEXT, "2026-03-01T00:00:00.000000100Z"), True),
        (numbers(TEXT, "2026-03-01T00:00:00.123456000Z"), False),
    ],
)
def test_moments_cut_off_are_said(values: list[Literal], is_cut: bool) -> None:
    found = kinds.kind_of(values, "at")
    assert found.type.name == "timestamp"
    assert (kinds.CUT_OFF in found.note) is is_cut


def test_patterns_can_be_declared() -> None:
    assert {
        pattern: fault for pattern in (*kinds.PATTERNS, *kinds.DAY_PATTERNS) if (fault := format_fault(pattern))
    } == {}
