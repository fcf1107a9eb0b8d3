"""Fields at paths, in formats, with defaults, in elements: the fast way gives what the reference gives, and what
Python's own parser finds there.

Records are made for the definition that they meet, so that values lie at its paths, then spoiled here and there: keys
with escapes or twice, halves of surrogates, other shapes in the way, depth. Each seed gives the same records always.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.test_contract_agreement import NOW, exactly
from twofold.contract import reasons
from twofold.contract.judge import Judge
from twofold.contract.records import JsonRecords
from twofold.contract.reference import NOTHING, Judgement, Reference
from twofold.definition.field_source import FieldSource, Step
from twofold.definition.model import Event, Field, Pipeline, Topic
from twofold.definition.types import FieldType

PATHS: list[tuple[Step, ...]] = [
    ("a",), ("a", "b"), ("a", "b", "c"), ("a", 0), ("a", 1, "b"), ("l", 0), ("l", 0, 1), ("l", 2, "a"), ("a", "é"),
    ("a.b",), ("",), ("a", "b", 0), ("l", "a"), ("n",), ("n", "x"), ("m", 1), ("m", 1, "k"),
]  # fmt: skip
MOMENTS = ['"2026-03-01T11:00:00Z"', '"2026-03-01 11:00"', '"2026-03-01T11:00:00.1234567+01:00"', '"2026-02-30"']
EPOCHS = ["1772362800", "1772362800.5", '"1772362800123"', "1772362800123456", "1.7723628e9", "-1", "-62135596800001",
          "9223372036854775807", "9223372036854775808", "1e400", "1772362800123456789", '"0"']  # fmt: skip
PATTERNED = ['"01/Mar/2026:02:00:01 +0200"', '"31/Feb/2026:00:00:00 +0000"', '"01/mar/2026:00:00:00 Z"', '"01.03.2026"',
             '"1.3.2026"', '" 01.03.2026"', '"٠١.03.2026"', '"2026-03-01  00:00:00"', '"01/Mar/0001:00:00:00 +0200"',
             '"2026-03-01 00:00:00"', '"\\u0030\\u0031.03.2026"']  # fmt: skip
NUMBERS = ["0", "-0", "5", "-5", "5.0", "1e2", "1.50", "0.005", "2147483648", "9007199254740993", "99999999.99",
           '"5"', '"05"', '"\\u0035"', '"5 "', "-0.0", "1e22", "12345678901234567890", '"1_0"']  # fmt: skip
ANYTHING = ["null", "true", '"TRUE"', "false", '""', '"x"', '"\\u00e9\\ud83d\\ude00"', "[]", "{}", '[1.50, {"b": 2}]',
            '{"b": {"c": 1}, "b": 7}', '{"a": [1, [2, 3], {"a": 4}]}', '["a", "b", "c"]', '{"\\u0062": 1}']  # fmt: skip
BROKEN = ['"\\ud800"', '{"\\ud800": 1}', '"\\x"', "[1,]", "{,}", "nul", "01", '"a\nb"', "\ufeff1", '["\\udc00\\ud800"]',
          '{"a": 1', "[" * 1001 + "]" * 1001, "NaN", "1 2"]  # fmt: skip
DEEP = ["[" * 990 + "]" * 990, '{"b":' * 990 + "1" + "}" * 990]
KINDS: list[tuple[str, str, Any, list[str]]] = [
    ("string", "iso8601", "x", ANYTHING), ("json", "iso8601", None, [*ANYTHING, *DEEP]),
    ("int", "iso8601", 5, NUMBERS), ("long", "iso8601", -1, NUMBERS), ("double", "iso8601", 0.5, NUMBERS),
    ("decimal(10,2)", "iso8601", None, NUMBERS), ("boolean", "iso8601", True, ["true", '"FALSE"', "null"]),
    ("timestamp", "iso8601", datetime(2026, 1, 1, tzinfo=UTC), MOMENTS), ("date", "iso8601", None, MOMENTS),
    *(("timestamp", form, None, EPOCHS) for form in ("epoch_s", "epoch_ms", "epoch_us", "epoch_ns")),
    ("date", "epoch_ms", None, [*EPOCHS, "1772323200000", "1772323200000.0"]),
    ("timestamp", "%d/%b/%Y:%H:%M:%S %z", None, PATTERNED), ("timestamp", "%Y-%m-%d %H:%M:%S", None, PATTERNED),
    ("date", "%d.%m.%Y", None, PATTERNED),
]  # fmt: skip
EACH = [None, None, None, FieldSource(("l",)), FieldSource(("a", "l")), FieldSource(("m", 1))]
_POOLS = {(kind, form): pool for kind, form, _, pool in KINDS}


class Token(str):
    """A value as it is to be written."""


def pipeline_of(dice: random.Random) -> Pipeline:
    """A definition with a few fields anywhere."""
    each = dice.choice(EACH)
    whole = each is not None
    fields = {"at": Field("at", FieldType("timestamp"), FieldSource(("at",), whole=whole), required=True)}
    for number, path in enumerate(dice.sample(PATHS, dice.randint(1, 4))):
        kind, form, default, _ = dice.choice(KINDS)
        source = FieldSource(path, whole=whole and dice.random() < 0.3)
        used = default if dice.random() < 0.5 else None
        required = used is None and dice.random() < 0.15
        fields[f"f{number}"] = Field(f"f{number}", FieldType.parse(kind), source, form, required=required, default=used)
    if dice.random() < 0.2:
        fields["all"] = Field("all", FieldType("json"), FieldSource(whole=whole and dice.random() < 0.5))
    event = Event((), "at", fields, each=each, max_bytes=dice.choice([300, *[1 << 20] * 9]))
    return Pipeline("p", Topic("p"), event, timedelta(minutes=1), {})


def token(dice: random.Random, field: Field) -> Token:
    """A value for a field, mostly of its type."""
    own = _POOLS.get((str(field.type), field.format), ANYTHING)
    pool = own if dice.random() < 0.95 else dice.choice([ANYTHING, NUMBERS, MOMENTS, EPOCHS])
    return Token(dice.choice(pool))


def put(node: Any, path: tuple[Step, ...], value: object) -> Any:  # noqa: ANN401
    """The node with a value at a path; what is of another shape there goes."""
    if not path:
        return value
    step, *rest = path
    if isinstance(step, str):
        node = node if isinstance(node, dict) else {}
        return {**node, step: put(node.get(step), tuple(rest), value)}
    node = list(node) if isinstance(node, list) else []
    node += [Token("null")] * (step + 1 - len(node))
    node[step] = put(node[step], tuple(rest), value)
    return node


def filled(dice: random.Random, node: Any, fields: list[Field]) -> Any:  # noqa: ANN401
    """The node with values at the paths of most fields."""
    for field in fields:
        if field.source.steps and dice.random() < 0.8:
            node = put(node, field.source.steps, token(dice, field))
    return node


def written(dice: random.Random, node: Any) -> str:  # noqa: ANN401
    """JSON, with blanks, escapes and keys that come twice."""
    gap = dice.choice(["", "", "", " ", "\n"])
    if isinstance(node, Token):
        return str(node)
    if isinstance(node, list):
        return f"[{gap}{f'{gap},'.join(written(dice, one) for one in node)}]"
    pairs = [(key, written(dice, value)) for key, value in node.items()]
    if pairs and dice.random() < 0.15:
        pairs.insert(0, (dice.choice(pairs)[0], dice.choice([*ANYTHING, "1"])))
    return f"{{{','.join(f'{gap}{key_text(dice, key)}{gap}:{gap}{value}' for key, value in pairs)}}}"


def key_text(dice: random.Random, key: str) -> str:
    """A key, now and then with an escape in it."""
    if key and dice.random() < 0.1:
        return f'"\\u{ord(key[0]):04x}{json.dumps(key[1:], ensure_ascii=False)[1:]}'
    return json.dumps(key, ensure_ascii=False)


def record_of(dice: random.Random, pipeline: Pipeline) -> bytes | None:
    """A record for a definition, and one of ten broken somewhere."""
    fields, each = list(pipeline.event.fields.values()), pipeline.event.each
    outer = [field for field in fields if each is None or field.source.whole]
    node = filled(dice, {"x": Token("1")}, outer)
    if dice.random() < 0.95:
        node = put(node, ("at",), Token('"2026-03-01T11:00:00Z"'))
    if each is not None and dice.random() < 0.9:
        inner = [field for field in fields if not field.source.whole]
        node = put(node, each.steps, [filled(dice, Token("1"), inner) for _ in range(dice.randint(0, 4))])
    text = written(dice, node)
    if dice.random() < 0.1:
        text = text.replace(dice.choice(['"x":', ":", ","]), f'"y":{dice.choice(BROKEN)},"x":', 1)
    value = text.encode("utf-8", "surrogatepass")
    spoiled = [value + b"\xff", None, value[:-1], b"\xef\xbb\xbf" + value, value + b"{}", b"", b"[]", b"\xff" + value]
    return dice.choice([*[value] * 72, *spoiled])


def shown(judgement: Judgement, pipeline: Pipeline, payload: bytes | None) -> dict[str, str]:
    """What the row of a judgement holds."""
    values, fault = judgement
    assert fault is None or fault.kind != reasons.NOT_JUDGED, (fault, payload)
    found = dict(values) if values is not None else dict.fromkeys(pipeline.event.fields)
    outcome = "rejected" if fault else "filtered" if values is None else "accepted"
    kind, text = (fault.kind, fault.text) if fault else (None, None)
    return exactly(
        {**found, "outcome": outcome, "reason_kind": kind, "reason": text, "payload": payload if fault else None}
    )


def by_reference(judge: Judge, values: list[bytes | None]) -> list[dict[str, str]]:
    """What the reference says, record by record and element by element."""
    pipeline, reference = judge.pipeline, Reference(judge.pipeline)
    if pipeline.event.each is None:
        return [shown(reference.event(reference.around(value, {}), NOW), pipeline, value) for value in values]
    found = judge.elements(JsonRecords(values, range(len(values))))
    rows = []
    for index, (parent, element) in enumerate(zip(found.parents, found.values, strict=True)):
        judgement = reference.event(reference.around(values[parent], {}), NOW, element)
        if element is None:
            judgement = Judgement(None, found.faults[index]) if index in found.faults else NOTHING
        number = {"element": repr(found.numbers[index])}
        rows.append({**shown(judgement, pipeline, values[parent]), **number})
    return rows


SEEDS = range(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_places_are_judged_as_by_the_reference(seed: int) -> None:
    dice = random.Random(seed)
    outcomes: dict[str, int] = {}
    for _ in range(50):
        judge = Judge(pipeline_of(dice))
        values = [record_of(dice, judge.pipeline) for _ in range(12)]
        rows = judge.judge(JsonRecords(values, range(len(values))), NOW).rows.to_pylist()
        for row, expected in zip(rows, by_reference(judge, values), strict=True):
            assert exactly(row) == expected, judge.pipeline.event
            outcomes[row["outcome"]] = outcomes.get(row["outcome"], 0) + 1
        alone = [judge.judge(JsonRecords([value], [0]), NOW).rows.to_pylist() for value in values]
        assert [exactly(row) for part in alone for row in part] == [exactly(row) for row in rows]
    # Records that are nearly all rejected, or taken, would show nothing.
    assert min(outcomes["accepted"], outcomes["rejected"]) > sum(outcomes.values()) // 8, outcomes


def at_path(value: Any, path: tuple[Step, ...]) -> Any:  # noqa: ANN401
    """What lies at a path by Python's parser; AssertionError where something of another shape is in the way."""
    for step in path:
        if value is None:
            return None
        if isinstance(step, str):
            assert isinstance(value, dict)
            value = value.get(step)
        else:
            assert isinstance(value, list)
            value = value[step] if step < len(value) else None
    return value


@pytest.mark.parametrize("seed", SEEDS)
def test_paths_and_elements_are_those_of_another_parser(seed: int) -> None:
    dice = random.Random(seed)
    looked_at = 0
    for _ in range(50):
        drawn = pipeline_of(dice)
        event = drawn.event
        as_json = {
            name: field if name == "at" else replace(field, type=FieldType("json"), format="iso8601", default=None)
            for name, field in event.fields.items()
        }
        judge = Judge(replace(drawn, event=replace(event, fields=as_json)))
        values = [record_of(dice, drawn) for _ in range(8)]
        judged = judge.judge(JsonRecords(values, range(len(values))), NOW)
        parents = range(len(values)) if judged.parents is None else judged.parents.to_pylist()
        for row, parent in zip(judged.rows.to_pylist(), parents, strict=True):
            if row["outcome"] != "accepted":
                continue
            record = element = json.loads(values[parent] or b"", parse_float=str, parse_int=str)
            if event.each is not None:
                element = at_path(record, event.each.steps)[row["element"] - 1]
            for name, field in list(as_json.items())[1:]:
                expected = at_path(record if field.source.whole else element, field.source.steps)
                found = None if row[name] is None else json.loads(row[name], parse_float=str, parse_int=str)
                assert found == expected, (field, values[parent])
                looked_at += found is not None
    assert looked_at > 100
