"""Sound definitions: what they mean, the folder of pipelines, `twofold check`, and the manual."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from twofold import tables
from twofold.commands.check import check
from twofold.definition.keys import keys_of
from twofold.definition.load import check_file, load_all, load_file, load_pipeline
from twofold.definition.model import Event, Field, Limits, Pipeline, Replay, Schedule, Stream, Topic, View
from twofold.definition.names import RESERVED_COLUMNS
from twofold.definition.renderer import FUNCTIONS
from twofold.definition.types import (
    NAMES,
    FieldType,
    format_duration,
    parse_duration,
    parse_size,
    pattern_fault,
    typed_value,
)
from twofold.errors import DefinitionError, UsageError
from twofold.settings import Settings

FLIGHTS = Path("pipelines/flights.yaml")
PAYMENTS = Path("tests/pipelines/payments.yaml")
MANUAL = Path("docs/definition.md")
SECTIONS = (Pipeline, Topic, Event, Field, View, Stream, Replay, Schedule, Limits)

DURATIONS = {
    "500 ms": timedelta(milliseconds=500),
    "1 s": timedelta(seconds=1),
    "90s": timedelta(seconds=90),
    "15 minutes": timedelta(minutes=15),
    "2 hours": timedelta(hours=2),
    "1 day": timedelta(days=1),
    "2 weeks": timedelta(days=14),
    "3650 days": timedelta(days=3650),
}
NO_DURATIONS = [
    "",
    "0 s",
    "-1 s",
    "1.5 hours",
    "1",
    60,
    None,
    True,
    "1 month",
    "2  hours",
    " 1 s",
    "1 HOUR",
    "3651 days",
    "9" * 16 + " s",
]
SIZES = {"1 B": 1, "64 KiB": 65_536, "1 MiB": 1 << 20, "1GiB": 1 << 30, 1: 1, 4096: 4096}
NO_SIZES = [0, -1, True, None, 1.5, "1", "1 MB", "1 kib", "2 GiB", "0 B"]

VALUES = {
    ("int", -(1 << 31)): -(1 << 31),
    ("long", (1 << 63) - 1): (1 << 63) - 1,
    ("double", Decimal("0.1")): 0.1,
    ("decimal(5,2)", Decimal("999.99")): Decimal("999.99"),
    ("decimal(5,2)", "1.50"): Decimal("1.50"),
    ("decimal(5,0)", 12): Decimal(12),
    ("timestamp", "2024-01-31"): datetime(2024, 1, 31, tzinfo=UTC),
    ("timestamp", "2024-01-31T02:00:00+02:00"): datetime(2024, 1, 31, tzinfo=UTC),
    ("date", "2024-02-29"): date(2024, 2, 29),
}
NO_VALUES = [
    ("int", 1 << 31),
    ("int", True),
    ("int", "1"),
    ("int", Decimal("1.0")),
    ("double", Decimal("inf")),
    ("double", "1"),
    ("decimal(5,2)", Decimal("1000")),
    ("decimal(5,2)", Decimal("0.001")),
    ("decimal(5,2)", Decimal("nan")),
    ("timestamp", "noon"),
    ("timestamp", 2024),
    ("date", "2023-02-29"),
    ("date", "2024-01-31T00:00:00"),
    ("string", 1),
]

PATTERNS = ["[A-Z]{3}", "a|b", r"\d+\.\d*", "(?i)x", "(?:ab)+?", r"[^\]\[]", "a{2,}", r"\{x\}", "", "é+", r"[\w.-]+@x"]
NO_PATTERNS = [
    "(",
    "[a",
    "a**",
    "a++",
    "(?=a)",
    "(?<n>a)",
    "(?P<n>a)",
    "(?>a)",
    r"(a)\1",
    "x{,3}",
    "{",
    "a{x}",
    "[[a]]",
    "[a&&b]",
    "[]a]",
]
NO_PATTERNS += [r"\Aa", r"a\Z", r"\p{L}", r"\0", "(?a)x", "(?#c)", "a" * 10 + "{99999999999}", "("]
NO_PATTERNS += ["a{1001}", "(a{1000}){1000}", "((a{100}){100}){100}"]


@pytest.mark.parametrize("text", DURATIONS)
def test_durations_are_read(text: str) -> None:
    assert parse_duration(text) == DURATIONS[text]
    assert parse_duration(format_duration(DURATIONS[text])) == DURATIONS[text]


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="a duration above 0"):
        parse_duration(text)


def test_sizes_are_read() -> None:
    assert {text: parse_size(text) for text in SIZES} == SIZES


@pytest.mark.parametrize("value", NO_SIZES)
def test_anything_else_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="a number of bytes"):
        parse_size(value)


@pytest.mark.parametrize("given", VALUES, ids=str)
def test_values_take_the_type_of_their_field(given: tuple[str, object]) -> None:
    kind, value = given
    typed = typed_value(value, FieldType.parse(kind))
    assert (typed, type(typed)) == (VALUES[given], type(VALUES[given]))


@pytest.mark.parametrize(("kind", "value"), NO_VALUES, ids=str)
def test_values_of_another_type_are_refused(kind: str, value: object) -> None:
    with pytest.raises(ValueError):
        typed_value(value, FieldType.parse(kind))


def test_patterns_are_those_that_every_engine_reads_alike() -> None:
    assert {pattern: pattern_fault(pattern) for pattern in PATTERNS} == dict.fromkeys(PATTERNS, "")
    assert [pattern for pattern in NO_PATTERNS if not pattern_fault(pattern)] == []


def test_flights_are_read_whole() -> None:
    flights = load_file(FLIGHTS)
    assert (flights.name, flights.topic.name, flights.topic.partitions) == ("flights", "flights", 4)
    assert flights.columns[:3] == ("event_id", "scheduled_at", "origin")
    assert flights.event.max_future == timedelta(days=2)
    assert flights.event.fields["origin"].one_of == ("EWR", "JFK", "LGA")
    assert flights.filter is not None and flights.filter.declared == "not cancelled"
    view = flights.views["departures_by_origin"]
    assert (view.window, view.every, view.by) == (timedelta(hours=1), timedelta(minutes=15), ("origin",))
    assert list(view.measures) == ["departures", "mean_delay"]
    assert flights.source_file == str(FLIGHTS.absolute())


def test_defaults_of_a_definition_unlike_flights() -> None:
    payments = load_file(PAYMENTS)
    assert (payments.topic.name, payments.topic.partitions) == ("payments-v1", 1)
    assert payments.filter is None and payments.replay is None
    assert payments.event.max_bytes == 65_536 and payments.event.max_future == timedelta(minutes=5)
    assert payments.event.fields["amount"].min == Decimal("0.01")
    assert payments.event.fields["booked_on"].min == date(2020, 1, 1)
    assert payments.views["turnover"].every == payments.views["turnover"].window
    assert payments.views["overall"].by == ()
    assert payments.schedule.maintenance == "@daily" and payments.schedule.batch is None


def write(folder: Path, file: str, text: str) -> Path:
    path = folder / file
    path.write_text(text)
    return path


def settings_for(folder: Path) -> Settings:
    return Settings(pipelines=folder)


def test_pipeline_is_found_by_its_name_whatever_the_file_is_called(tmp_path: Path) -> None:
    write(tmp_path, "one.yaml", FLIGHTS.read_text())
    write(tmp_path, "two.yml", PAYMENTS.read_text())
    write(tmp_path, "notes.txt", "no definition")
    assert sorted(load_all(tmp_path)) == ["flights", "payments"]
    assert load_pipeline(settings_for(tmp_path), "payments").name == "payments"


def test_faulty_file_does_not_stand_in_the_way_of_another_pipeline(tmp_path: Path) -> None:
    write(tmp_path, "flights.yaml", FLIGHTS.read_text())
    write(tmp_path, "payments.yaml", "name: payments\n")
    assert load_pipeline(settings_for(tmp_path), "flights").name == "flights"
    with pytest.raises(DefinitionError, match=r"payments\.yaml:1: event: found nothing"):
        load_pipeline(settings_for(tmp_path), "payments")
    with pytest.raises(DefinitionError, match="3 faults"):
        load_all(tmp_path)


def test_unknown_pipeline_is_a_usage_error_that_says_where_was_looked(tmp_path: Path) -> None:
    write(tmp_path, "flights.yaml", FLIGHTS.read_text())
    with pytest.raises(UsageError, match=rf'no pipeline "flihgts" in {tmp_path} \(did you mean "flights"\?\)'):
        load_pipeline(settings_for(tmp_path), "flihgts")
    with pytest.raises(UsageError, match="no folder"):
        load_pipeline(settings_for(tmp_path / "none"), "flights")


def test_two_files_with_one_name_or_one_topic_are_faults(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", FLIGHTS.read_text())
    write(tmp_path, "b.yaml", FLIGHTS.read_text().replace("name: flights\n", "name: other\n", 1))
    with pytest.raises(DefinitionError, match=r'b\.yaml:4: topic: found "flights", which .*a\.yaml has too'):
        load_all(tmp_path)
    write(tmp_path, "b.yaml", FLIGHTS.read_text().replace("{name: flights,", "{name: other,", 1))
    with pytest.raises(DefinitionError, match=r'b\.yaml:3: name: found "flights"'):
        load_pipeline(settings_for(tmp_path), "flights")


def test_topics_that_kafka_takes_for_one_are_faults(tmp_path: Path) -> None:
    for name, topic in (("first", "eu.flights"), ("second", "eu_flights"), ("third", "eu-flights")):
        text = FLIGHTS.read_text().replace("name: flights\n", f"name: {name}\n", 1)
        write(tmp_path, f"{name}.yaml", text.replace("{name: flights,", f"{{name: {topic},", 1))
    said = r'second\.yaml:4: topic: found "eu_flights", which .*first\.yaml has as "eu\.flights": Kafka takes'
    with pytest.raises(DefinitionError, match=f"1 fault:\n.*{said}"):
        load_all(tmp_path)
    assert "Kafka takes `.` and `_` in topics for one" in run(folder=tmp_path).stdout
    with pytest.raises(DefinitionError, match=said):
        load_pipeline(settings_for(tmp_path), "second")
    assert load_pipeline(settings_for(tmp_path), "first").topic.name == "eu.flights"
    assert load_pipeline(settings_for(tmp_path), "third").topic.name == "eu-flights"


def run(*arguments: str, folder: Path = FLIGHTS.parent) -> Result:
    return CliRunner().invoke(check, list(arguments), obj=settings_for(folder), standalone_mode=False)


def test_check_prints_a_line_for_each_sound_file() -> None:
    result = run(str(FLIGHTS), str(PAYMENTS))
    assert result.stdout.splitlines() == [
        "pipelines/flights.yaml: ok (flights, 10 fields, 1 view)",
        "tests/pipelines/payments.yaml: ok (payments, 9 fields, 2 views)",
        "2 files, no faults",
    ]
    assert result.exit_code == 0
    assert run().stdout.startswith("pipelines/flights.yaml: ok")


def test_check_lists_every_fault_of_every_file(tmp_path: Path) -> None:
    bad = write(tmp_path, "bad.yaml", "name: Bad\ntopik: x\n")
    result = run(str(bad), str(FLIGHTS), str(tmp_path / "none.yaml"))
    assert result.exit_code == 1
    assert f'{bad}:2: topik: found the unknown key "topik"' in result.stdout
    assert 'did you mean "topic"?' in result.stdout
    assert f"{tmp_path}/none.yaml:1: found no such file or directory, expected a readable file" in result.stdout
    assert result.stdout.splitlines()[-1] == "3 files, 6 faults"


def test_check_compares_the_files_with_each_other(tmp_path: Path) -> None:
    twin = write(tmp_path, "twin.yaml", FLIGHTS.read_text())
    result = run(str(FLIGHTS), str(twin), str(FLIGHTS))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "2 files, 2 faults"


def test_check_prints_json_for_programs(tmp_path: Path) -> None:
    bad = write(tmp_path, "bad.yaml", FLIGHTS.read_text().replace("min: -120", "min: abc"))
    result = run(str(bad), "--json")
    (report,) = json.loads(result.stdout)
    assert (report["file"], report["ok"], len(report["faults"])) == (str(bad), False, 1)
    assert report["faults"][0] | {"hint": ""} == {
        "file": str(bad),
        "line": 18,
        "path": "event.fields.delay_min.min",
        "found": '"abc"',
        "expected": "a whole number of 32 bits",
        "hint": "",
    }


def test_nothing_to_check_is_a_usage_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert isinstance(run("--pipelines", str(folder)).exception, UsageError)


def test_manual_names_every_key_type_function_and_reserved_name() -> None:
    manual = MANUAL.read_text()
    keys = {key for section in SECTIONS for key in keys_of(section)}
    words = keys | set(NAMES) | FUNCTIONS | RESERVED_COLUMNS
    assert sorted(word for word in words if f"`{word}`" not in manual) == []


def test_columns_of_our_own_tables_are_reserved() -> None:
    payments = load_file(PAYMENTS)
    made = [tables.stream_log(payments), tables.batch_log(payments), tables.events(payments)]
    own = {column for table in made for column in table.column_names} - set(payments.columns)
    assert own - RESERVED_COLUMNS == set()


def test_examples_of_the_manual_are_sound(tmp_path: Path) -> None:
    blocks = MANUAL.read_text().split("```yaml\n")[1:]
    whole = [block.split("```")[0] for block in blocks if block.startswith("name:")]
    assert whole
    for index, text in enumerate(whole):
        _, faults = check_file(write(tmp_path, f"{index}.yaml", text))
        assert faults == []
