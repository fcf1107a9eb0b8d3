"""Fields at paths, in formats, with defaults, in elements: the fast way gives what the reference gives, and what
Python's own parser finds there."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_contract_agreement import FEW, NOW, blanks, exactly, hostile, in_quotes, numbers, stamps, words
from twofold.contract import reasons
from twofold.contract.judge import Judge
from twofold.contract.records import JsonRecords
from twofold.contract.reference import NOTHING, Judgement, Reference
from twofold.definition.model import Event, Field, Pipeline, Topic
from twofold.definition.sources import Source
from twofold.definition.types import FieldType

PATHS: list[tuple[str | int, ...]] = [
    ("a",), ("a", "b"), ("a", "b", "c"), ("a", 0), ("a", 1, "b"), ("l", 0), ("l", 0, 1), ("l", 2, "a"), ("a", "é"),
    ("a.b",), ("",), ("a", "b", 0), ("l", "a"), ("n",),
]  # fmt: skip
KINDS: list[tuple[str, str, Any]] = [
    ("string", "iso8601", "x"), ("int", "iso8601", 5), ("long", "iso8601", -1), ("double", "iso8601", 0.5),
    ("decimal(10,2)", "iso8601", None), ("boolean", "iso8601", True), ("json", "iso8601", None),
    ("timestamp", "iso8601", datetime(2026, 1, 1, tzinfo=UTC)), ("timestamp", "epoch_s", None),
    ("timestamp", "epoch_ms", None), ("timestamp", "epoch_us", None), ("timestamp", "epoch_ns", None),
    ("timestamp", "%d/%b/%Y:%H:%M:%S %z", None), ("timestamp", "%Y-%m-%d %H:%M:%S", None), ("date", "iso8601", None),
    ("date", "epoch_ms", None), ("date", "%d.%m.%Y", None),
]  # fmt: skip
EACH = [None, None, Source(("l",)), Source(("a", "l"))]
AT = "2026-03-01T11:00:00Z"


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    each = draw(st.sampled_from(EACH))
    fields = {
        "id": Field("id", FieldType("string"), Source(("id",), whole=each is not None), required=True),
        "at": Field("at", FieldType("timestamp"), Source(("at",), whole=each is not None), required=True),
    }
    sources = [Source(path) for path in draw(st.lists(st.sampled_from(PATHS), max_size=6, unique=True))]
    if each is not None:
        sources = [replace(source, whole=draw(st.booleans())) for source in sources]
        sources += draw(st.sampled_from([[], [Source()]]))
    for number, source in enumerate(sources):
        kind, form, default = draw(st.sampled_from(KINDS))
        name = f"f{number}"
        given_default = default if draw(st.booleans()) else None
        required = given_default is None and draw(st.integers(0, 3)) == 0
        fields[name] = Field(name, FieldType.parse(kind), source, form, required=required, default=given_default)
    if draw(st.integers(0, 3)) == 0:
        fields["whole"] = Field("whole", FieldType("json"), Source(whole=True))
    event = Event((), "at", fields, each=each, max_bytes=draw(st.sampled_from([200, 1 << 20, 1 << 20])))
    return Pipeline("p", Topic("p"), event, timedelta(minutes=1), {})


epochs = st.one_of(
    st.sampled_from(["0", "-1", "1772362800", "1772362800.5", "1.7723628e9", "1772362800123", "1772362800123456789",
                     "253402300800000", "9223372036854775807", "9223372036854775808", "1e400", "-62135596800001"]),
    st.integers(-(2**65), 2**65).map(str),
)  # fmt: skip
patterned = st.sampled_from([
    "01/Mar/2026:02:00:01 +0200", "31/Feb/2026:00:00:00 +0000", "01/mar/2026:00:00:00 Z", "01.03.2026", "1.3.2026",
    "2026-03-01 00:00:00", "2026-03-01  00:00:00", " 01.03.2026", "01.03.2026\n", "٠١.03.2026",
    "01/Mar/0001:00:00:00 +0200",
])  # fmt: skip
keys = st.one_of(
    st.sampled_from(["a", "b", "c", "l", "n", "é", "a.b", "", "id", "0"]).flatmap(in_quotes),
    st.sampled_from(['"\\ud800"', '"\\udc00a"', '"\\u0061"', '"a\\u0000"', '"\\x61"', "a", '"a\n"', '"\ud800"']),
)
odd = st.sampled_from(["[" * 997 + "]" * 997, "[" * 1000 + "]" * 1000, '{"a":' * 998 + "1" + "}" * 998])
leaves = st.one_of(
    numbers,
    epochs,
    st.one_of(words, patterned, stamps, epochs, numbers).flatmap(in_quotes),
    st.sampled_from(["null", "true", "false", "[]", "{}"]),
)


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda parts, gap: f"[{gap}{f'{gap},'.join(parts)}{gap}]", st.lists(inner, max_size=3), blanks)


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(keys, inner), max_size=4)
    return st.builds(
        lambda found, gap: f"{{{','.join(f'{gap}{key}{gap}:{value}' for key, value in found)}}}", pairs, blanks
    )


# Sound values are far more common: a record with a broken one says nothing about the rest.
sound = st.recursive(leaves, lambda inner: st.one_of(arrays(inner), objects(inner), objects(inner)), max_leaves=8)
tokens = st.integers(0, 11).flatmap(lambda at: {0: hostile, 1: odd}.get(at, sound))


@st.composite
def texts(draw: st.DrawFn) -> bytes | None:
    """An object that has what is required, and anything at the paths."""
    pairs = [(f'"{name}"', draw(tokens)) for name in draw(st.permutations(["a", "l", "n"])) if draw(st.integers(0, 4))]
    if draw(st.integers(0, 9)):
        pairs += [('"id"', '"x"'), ('"at"', f'"{AT}"')]
    pairs += draw(st.lists(st.tuples(keys, tokens), max_size=2))
    inner = ",".join(f"{key}:{draw(blanks) if draw(st.booleans()) else ''}{value}" for key, value in pairs)
    text = f"{{{inner}}}".encode("utf-8", "surrogatepass")
    at = draw(st.integers(0, 30))
    return {0: text + b"\xff", 1: None, 2: text[:-1], 3: b" " + text + b"\n"}.get(at, text)


def shown(judgement: Judgement, pipeline: Pipeline, payload: bytes | None) -> dict[str, str]:
    values, fault = judgement
    assert fault is None or fault.kind != reasons.NOT_JUDGED, fault
    found = dict(values) if values is not None else dict.fromkeys(pipeline.event.fields)
    outcome = "rejected" if fault else "filtered" if values is None else "accepted"
    judged = {
        "reason_kind": fault and fault.kind,
        "reason": fault and fault.text,
        "payload": payload if fault else None,
    }
    return exactly({**found, "outcome": outcome, **judged})


@FEW
@given(pipelines(), st.lists(texts(), min_size=1, max_size=6))
def test_places_are_judged_as_by_the_reference(pipeline: Pipeline, values: list[bytes | None]) -> None:
    judge, reference = Judge(pipeline), Reference(pipeline)
    records = JsonRecords(values, range(1, len(values) + 1))
    judged = judge.judge(records, NOW)
    rows = judged.rows.to_pylist()
    if pipeline.event.each is None:
        expected = [shown(reference.json(value, NOW), pipeline, value) for value in values]
    else:
        found = judge.elements(records)
        expected = []
        for index, (parent, element) in enumerate(zip(found.parents, found.values, strict=True)):
            value = values[parent]
            judgement = reference.json(value, NOW, {}, element)
            if element is None:
                judgement = Judgement(None, found.faults[index]) if index in found.faults else NOTHING
            expected.append(shown(judgement, pipeline, value))
        assert [row.pop("element") for row in rows] == list(found.numbers)
    assert [exactly(row) for row in rows] == expected
    alone = [Judge(pipeline).judge(JsonRecords([value], [1]), NOW).rows for value in values]
    together = [row for part in alone for row in part.to_pylist()]
    assert [exactly({name: row[name] for name in rows[0]}) for row in together] == [exactly(row) for row in rows]


def at_path(value: Any, path: tuple[str | int, ...]) -> tuple[bool, Any]:  # noqa: ANN401
    """Whether a path goes through objects and arrays only, and what lies there: nothing is null."""
    for step in path:
        if value is None:
            return True, None
        if not isinstance(value, dict if isinstance(step, str) else list):
            return False, None
        value = value.get(step) if isinstance(value, dict) else value[step] if step < len(value) else None  # type: ignore[call-overload,operator]
    return True, value


@FEW
@given(st.sampled_from(PATHS), st.lists(texts(), min_size=1, max_size=4))
def test_a_path_leads_where_another_parser_finds_it(path: tuple[str | int, ...], values: list[bytes | None]) -> None:
    fields = {
        "at": Field("at", FieldType("timestamp"), required=True),
        "found": Field("found", FieldType("json"), Source(path)),
    }
    pipeline = Pipeline("p", Topic("p"), Event((), "at", fields), timedelta(minutes=1), {})
    rows = Judge(pipeline).judge(JsonRecords(values, range(len(values))), NOW).rows
    for value, outcome, text in zip(values, rows["outcome"].to_pylist(), rows["found"].to_pylist(), strict=True):
        if outcome == "rejected":
            continue
        sound, expected = at_path(json.loads(value or b""), path)
        assert sound, (path, value)
        assert (None if text is None else json.loads(text)) == expected, (path, value)


def test_elements_are_those_of_another_parser() -> None:
    pipeline = Pipeline(
        "p", Topic("p"),
        Event((), "at", {"at": Field("at", FieldType("timestamp"), Source(("at",), whole=True), required=True),
                         "v": Field("v", FieldType("json"), Source())}, each=Source(("l",))),
        timedelta(minutes=1), {},
    )  # fmt: skip

    @FEW
    @given(st.lists(texts(), min_size=1, max_size=4))
    def agree(values: list[bytes | None]) -> None:
        judged = Judge(pipeline).judge(JsonRecords(values, range(len(values))), NOW)
        parents = judged.of_records(pa.array(range(len(values)))).to_pylist()
        rows = judged.rows.to_pylist()
        for index, value in enumerate(values):
            own = [row for row, parent in zip(rows, parents, strict=True) if parent == index]
            assert [row["element"] for row in own] in ([0], list(range(1, len(own) + 1)))
            if all(row["outcome"] == "accepted" for row in own):
                found = [None if row["v"] is None else json.loads(row["v"]) for row in own]
                assert found == json.loads(value or b"")["l"]

    agree()
