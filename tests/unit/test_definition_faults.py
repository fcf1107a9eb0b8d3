"""Faulty pipeline files: each mistake gives its fault, at its line, and nothing else; never a stack trace."""

from __future__ import annotations

import copy
import json
import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from twofold.definition.load import check_file, load_file
from twofold.errors import DefinitionError

FLIGHTS = Path("pipelines/flights.yaml").read_text()
SMALL = """\
name: orders
topic: {name: orders, partitions: 2}
event:
  id: order_id
  time: placed_at
  fields:
    order_id: {type: long, required: true}
    placed_at: {type: timestamp, required: true}
    country: {type: string}
    amount: {type: "decimal(10,2)"}
    paid: {type: boolean}
filter: "amount > 0"
lateness: 1 hour
views:
  by_country:
    window: 1 hour
    every: 30 minutes
    by: [country]
    measures:
      orders: "count(*)"
"""

# (text to replace, replacement, faults as "line path: part of the message")
MISTAKES = {
    "misspelt key": ("filter:", "fitler:", ['12 fitler: unknown key "fitler", … did you mean "filter"?']),
    "misspelt nested key": (
        "type: long,",
        "typ: long,",
        ['7 .order_id.typ: did you mean "type"?', "7 .order_id.type: nothing"],
    ),
    "missing key": ("lateness: 1 hour\n", "", ["1 lateness: nothing, expected a duration"]),
    "missing nested key": ("  id: order_id\n", "", ["3 event.id: nothing"]),
    "null key": ("lateness: 1 hour", "lateness:", ["13 lateness: nothing"]),
    "empty field": (
        "country: {type: string}",
        "country:",
        ["9 event.fields.country: nothing, expected a mapping"],
    ),
    "wrong kind": ("[country]", "country", ['18 by_country.by: "country", expected a list']),
    "number as text": ("name: orders\n", "name: 12\n", ["1 name: 12, … put it in quotes"]),
    "list as text": ("name: orders\n", "name: [a]\n", ["1 name: a list, expected"]),
    "pipeline name": ("name: orders\n", "name: Orders\n", ['1 name: "Orders", expected a name of a-z']),
    "pipeline schema": ("name: orders\n", "name: main\n", ['1 name: "main", expected a name that is not a schema']),
    "topic name": ("{name: orders,", "{name: or/ders,", ['2 topic.name: "or/ders", expected a Kafka topic name']),
    "partitions": (
        "partitions: 2",
        "partitions: 10001",
        ["2 topic.partitions: 10001, expected a whole number from 1 to"],
    ),
    "more digits than Python writes out": (
        "partitions: 2",
        f"partitions: 0x{'f' * 4000}",
        ['2 topic.partitions: "0xfff … expected a whole number'],
    ),
    "partitions as float": ("partitions: 2", "partitions: 2.5", ["2 topic.partitions: 2.5, expected a whole"]),
    "time stamps by producer": (
        "partitions: 2",
        "settings: {message.timestamp.type: CreateTime}",
        ['2 topic.settings.message.timestamp.type: "CreateTime", expected LogAppendTime'],
    ),
    "compacted": (
        "partitions: 2",
        "settings: {cleanup.policy: compact}",
        ['2 topic.settings.cleanup.policy: "compact", expected delete'],
    ),
    "unknown id": ("id: order_id\n", "id: orderid\n", ['4 event.id: "orderid", … did you mean "order_id"?']),
    "id of wrong type": (
        "id: order_id",
        "id: placed_at",
        ['4 event.id: "placed_at", a timestamp, expected a field of type one'],
    ),
    "optional time": (
        "timestamp, required: true",
        "timestamp",
        ["5 event.time: which may be absent, expected a field with `required: true`"],
    ),
    "unknown type": ("type: boolean", "type: bool", ['11 .paid.type: "bool", … did you mean "boolean"?']),
    "unquoted decimal": ('"decimal(10,2)"', "decimal(10,2)", ["10 .amount.type: write", "10 .amount.2): write"]),
    "wide decimal": ("decimal(10,2)", "decimal(39,2)", ["10 .amount.type: decimal precision must be 1 to 38"]),
    "reserved field": ("country: {", "outcome: {", ["9 event.fields.outcome: ", '18 by[0]: "country"']),
    "field name": ("paid: {", "Paid: {", ['11 event.fields.Paid: the field name "Paid"']),
    "bound of wrong type": (
        '(10,2)"}',
        '(10,2)", min: abc}',
        ['10 .amount.min: "abc", expected a number that fits decimal(10,2)'],
    ),
    "bound with more digits": (
        '(10,2)"}',
        '(10,2)", min: 0.001}',
        ["10 .amount.min: 0.001, expected a number that fits"],
    ),
    "bound with more digits than 28": (
        'decimal(10,2)"}',
        'decimal(38,2)", max: "12345678901234567890123456789.005"}',
        ['10 .amount.max: "12345678901234567890123456789.005", expected a number that fits'],
    ),
    "bounds crossed": ('(10,2)"}', '(10,2)", min: 5, max: 1}', ["10 .amount.max: 1 below min 5"]),
    "rule out of place": ("type: boolean", "type: boolean, max: 1", ["11 .paid.max: max on a boolean"]),
    "value of wrong type": (
        "type: string",
        "type: string, one_of: [NO, 1]",
        ["9 .country.one_of[1]: 1, … put it in quotes"],
    ),
    "value twice": ("type: string", "type: string, one_of: [a, a]", ['9 .country.one_of[1]: "a" again']),
    "no value": ("type: string", "type: string, one_of: []", ["9 .country.one_of: a list, expected"]),
    "broken pattern": (
        "type: string",
        "type: string, pattern: '[A-'",
        ["9 .country.pattern: unterminated character set"],
    ),
    "pattern of Java only": ("type: string", "type: string, pattern: '\\p{L}+'", ["9 .country.pattern: bad escape"]),
    "pattern read otherwise by Java": (
        "type: string",
        "type: string, pattern: 'x{,3}'",
        ["9 .country.pattern: no repetition"],
    ),
    "length": ("type: string", "type: string, max_length: 0", ["9 .country.max_length: 0, expected a whole number"]),
    "duration": ("lateness: 1 hour", "lateness: 1 our", ['13 lateness: "1 our", expected a duration']),
    "no duration": ("lateness: 1 hour", "lateness: 0 s", ['13 lateness: "0 s"']),
    "bare number as duration": ("lateness: 1 hour", "lateness: 90", ["13 lateness: 90, expected a duration"]),
    "size": (
        "  time: placed_at\n",
        "  time: placed_at\n  max_bytes: 1 MB\n",
        ['6 event.max_bytes: "1 MB", expected a number'],
    ),
    "gaps between windows": (
        "every: 30 minutes",
        "every: 2 hours",
        ["17 by_country.every: 2 hours, expected at most the window"],
    ),
    "uneven windows": ("every: 30 minutes", "every: 25 minutes", ["17 .every: 25 minutes, expected a whole fraction"]),
    "too many windows": ("every: 30 minutes", "every: 1 s", ["17 .every: each event into 3600 windows"]),
    "fractions of seconds": (
        "every: 30 minutes",
        "every: 500 ms",
        ["17 .every: 500 ms, expected whole seconds", "17 .every: 7200"],
    ),
    "view that is a table": ("  by_country:", "  events:", ['15 views.events: the view name "events"']),
    "unknown group": ("[country]", "[paid, countri]", ['18 by_country.by[1]: "countri", … did you mean "country"?']),
    "group twice": ("[country]", "[country, country]", ['18 by[1]: "country" again']),
    "no measure": ('measures:\n      orders: "count(*)"', "measures: {}", ["19 measures: no measure"]),
    "measure named as a group": ("orders: ", "country: ", ['20 measures.country: the measure name "country"']),
    "measure named as a column": (
        "orders: ",
        "window_start: ",
        ['20 measures.window_start: the measure name "window_start"'],
    ),
    "cron": (
        "lateness:",
        'schedule: {batch: "@hurly"}\nlateness:',
        ['13 schedule.batch: "@hurly", … did you mean "@hourly"?'],
    ),
    "cron of six": ("lateness:", 'schedule: {union: "0 * * * * *"}\nlateness:', ["13 schedule.union: five parts"]),
    "cron that never comes": (
        "lateness:",
        'schedule: {batch: "0 0 31 2 *", proof: "0 0 30 2,02 *", union: "R/5 * * MAR FRI"}\nlateness:',
        ["13 schedule.batch: it never comes", "13 schedule.proof: it never comes", "13 schedule.union: R is another"],
    ),
    "replay": ("lateness:", "replay: {source: x, query: SELECT 1 2}\nlateness:", ["13 replay.query: Parser Error"]),
    "a replay into somebody else's topic": (
        "topic: {name: orders, partitions: 2}",
        "topic: {name: orders, managed: false, partitions: 2}\nreplay: {generate: 5}",
        [
            "2 topic.partitions: `partitions` of a topic with `managed: false`, expected no such key",
            "3 replay: `replay` into a topic with `managed: false`, expected no such key",
        ],
    ),
    "half a replay": ("lateness:", "replay: {source: x}\nlateness:", ["13 replay.query: `query`, or `generate`"]),
    "two replays": (
        "lateness:",
        "replay: {generate: 5, since: 2024-01-01, rate: .nan}\nlateness:",
        ["13 replay.since: `since` beside `generate`", "13 replay.rate: NaN, expected a number above 0"],
    ),
    "two paces, no time": (
        "lateness:",
        "replay: {source: x, query: SELECT 1, rate: 2, speed_up: 3.5, since: 2024-01-02, until: 2024-01-02}\nlateness:",
        ["13 replay.speed_up: `speed_up` beside `rate`", "13 replay.until: a moment after `since`"],
    ),
    "half a character": ("name: orders\n", 'name: "\\ud800"\n', ["1 name: half a character"]),
    "half a character in a key": ("country: {", '"\\ud800": {}\n    country: {', ["9 event.fields: the key"]),
    "key twice": (
        "lateness: 1 hour",
        "lateness: 1 hour\nlateness: 2 hours",
        ['14 lateness: the key "lateness" again, … line 13'],
    ),
    "tab": ("  window: 1 hour", "\twindow: 1 hour", ["16 : found character '\\t' … spaces, not tabs"]),
    "broken YAML": ("[country]", "[country", ["19 : expected valid YAML"]),
    "tag": ("name: orders\n", "name: !!python/object:os.system orders\n", ["1 name: the tag"]),
    **{
        f"YAML {version}": (
            "name: orders\n",
            f"%YAML {version}\n---\nname: orders\n",
            [f"1 : %YAML {version}, … remove"],
        )
        for version in ("1.0", "1.1", "1.3", "2.0")
    },
    "tag that changes the meaning": (
        "type: long, required: true",
        "type: long, required: !!bool yes",
        ["7 .order_id.required: the tag tag:yaml.org,2002:bool, expected a plain value"],
    ),
    "tag of a text in quotes": ("partitions: 2", "partitions: !!int '2'", ["2 topic.partitions: the tag"]),
    "tag of nothing": ("lateness: 1 hour", "lateness: !!null 1 hour", ["13 lateness: the tag"]),
    "tag of a set": ("[country]", "!!set {country}", ["18 by_country.by: the tag"]),
    "tag of everything": ("name: orders\n", "--- !orders\nname: orders\n", ["1 : the tag !orders"]),
    "two documents": ("filter:", "---\nfilter:", ["12 : another document … one pipeline per file"]),
    "alias within itself": ("[country]", "&a [*a]", ["1 : beyond reason", "18 by[0]: a list"]),
}


def faults_of(folder: Path, text: str | bytes) -> list[str]:
    file = folder / "orders.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    pipeline, faults = check_file(file)
    assert (pipeline is None) == bool(faults)
    return [str(fault).removeprefix(f"{file}:") for fault in faults]


def matches(fault: str, expected: str) -> bool:
    """`12 path: part … part`: the line, the end of the path, parts of the message in their order."""
    line, path, *parts = expected.replace(":", "", 1).replace(" ", "\0", 2).split("\0")
    start, _, message = fault.partition(": ")
    wanted = "".join(parts)
    if path and not message.partition(": ")[0].endswith(path):
        return False
    position = 0
    for part in wanted.split("…"):
        position = message.find(part.strip(), position)
        if position < 0:
            return False
    return start == line


def test_small_file_is_sound(tmp_path: Path) -> None:
    assert faults_of(tmp_path, SMALL) == []
    assert faults_of(tmp_path, f"%YAML 1.2\n---\n{SMALL}") == []
    plain = SMALL.replace("orders\n", "!!str orders\n", 1).replace("[country]", "!!seq [! country]")
    assert faults_of(tmp_path, plain.replace("partitions: 2", "partitions: !!int 2")) == []


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_gives_its_fault_at_its_line(name: str, tmp_path: Path) -> None:
    old, new, expected = MISTAKES[name]
    assert old in SMALL
    faults = faults_of(tmp_path, SMALL.replace(old, new, 1))
    assert len(faults) == len(expected), faults
    for fault in expected:
        assert any(matches(found, fault) for found in faults), (fault, faults)


def test_all_faults_are_told_at_once_across_shape_rules_and_expressions(tmp_path: Path) -> None:
    text = SMALL
    for old, new in (
        ("fields:", "feelds: 1\n  fields:"),
        ("1 hour\n    every", "1 our\n    every"),
        ("count(*)", "sum(amont)"),
    ):
        text = text.replace(old, new)
    text = text.replace("amount > 0", "count(*) > 0").replace("type: boolean", "type: boolean, min: 1")
    lines = sorted(int(fault.split(":")[0]) for fault in faults_of(tmp_path, text))
    assert lines == [6, 12, 13, 17, 21]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "1: found an empty file"),
        (b"# only a comment\n", "1: found an empty file"),
        (b"- a\n- b\n", "1: found no mapping"),
        (b"name: x\nevent: \xff\xfe\n", "2: found bytes that are not UTF-8"),
        (b"a: " + b"[" * 1000, "1: found maximum recursion depth exceeded"),
        (b"x" * ((1 << 20) + 1), "1: found 1048577 bytes"),
    ],
    ids=["empty", "comment", "list", "encoding", "deep", "large"],
)
def test_files_that_are_no_definition(
    content: bytes, expected: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # Modules of the contract and of the proof raise it, where they were imported before.
    request.addfinalizer(partial(sys.setrecursionlimit, sys.getrecursionlimit()))
    sys.setrecursionlimit(1000)
    (fault,) = faults_of(tmp_path, content)
    assert fault.startswith(expected)


def test_missing_file_and_folder_are_faults_with_a_remedy(tmp_path: Path) -> None:
    _, (missing,) = check_file(tmp_path / "none.yaml")
    _, (folder,) = check_file(tmp_path)
    assert "no such file" in str(missing) and "check the path" in str(missing)
    assert "is a directory" in str(folder)


def test_load_file_raises_one_error_with_every_fault(tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text(
        SMALL.replace("lateness: 1 hour", "lateness: x").replace("count(*)", "count(").replace("paid:", "Paid:")
    )
    with pytest.raises(DefinitionError, match="3 faults:") as raised:
        load_file(file)
    assert all(f"orders.yaml:{line}:" in str(raised.value) for line in (11, 13, 20))


DOCUMENT = YAML(typ="safe", pure=True).load(FLIGHTS)
LINES = FLIGHTS.splitlines(keepends=True)
ODD = st.sampled_from(
    [
        "%YAML 1.3\n---\n",
        "!!bool ",
        "!!set ",
        f"0x{'f' * 4000}",
        "0 0 31 2 *",
        "",
        "null",
        "~",
        "[]",
        "{}",
        "1",
        "-1",
        "1.5",
        ".nan",
        "true",
        "'",
        '"',
        "\t",
        ":",
        "- x",
        "&a",
        "*a",
        "|",
        "((",
        "\x00",
        "ÿ",
        "é",
    ]
)


@settings(max_examples=300)
@given(st.data())
def test_no_mutation_of_a_sound_file_gives_a_stack_trace(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(lines) - 1))
        line = lines[index]
        start = data.draw(st.integers(0, len(line)))
        end = data.draw(st.integers(start, min(len(line), start + 12)))
        put = data.draw(st.one_of(ODD, st.text(max_size=5), st.sampled_from(LINES)))
        lines[index] = line[:start] + put + line[end:]
    faults_of(tmp_path_factory.getbasetemp(), "".join(lines).encode("utf-8", "surrogatepass"))


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates().map(str))
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@settings(max_examples=200)
@given(st.data())
def test_no_value_anywhere_gives_a_stack_trace(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    document = copy.deepcopy(DOCUMENT)
    holder = document
    while True:
        key = data.draw(st.sampled_from(sorted(holder)))
        if not isinstance(holder[key], dict) or not holder[key] or data.draw(st.booleans()):
            break
        holder = holder[key]
    holder[key] = data.draw(TREES)
    faults_of(tmp_path_factory.getbasetemp(), json.dumps(document, allow_nan=True))
