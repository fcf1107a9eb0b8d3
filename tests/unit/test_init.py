"""`twofold init`: from a sample to a pipeline file that is sound and takes the sample."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import zip_longest
from pathlib import Path
from threading import Thread
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from twofold.cli import cli
from twofold.commands.try_ import Summary, judged
from twofold.definition.field_source import is_key
from twofold.definition.load import check_file
from twofold.draft import kinds, sample
from twofold.draft.pipeline_text import pipeline_text
from twofold.errors import TwofoldError, UsageError
from twofold.kafka import KafkaRecord
from twofold.readers import SetAside
from twofold.schema_registry import Registered, UnknownSchema

NOW = datetime(2026, 11, 1, tzinfo=UTC)
MARCH = 1_772_323_200


@pytest.fixture
def made(tmp_path: Path) -> Any:  # noqa: ANN401
    """Runs the command on a file of this content; gives its result and the file's text."""

    def make(content: str | bytes, name: str = "events.jsonl", pipeline: str = "p") -> tuple[Result, str]:
        file = tmp_path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        where = tmp_path / "pipelines"
        result = CliRunner().invoke(cli, ["--pipelines", str(where), "init", pipeline, "--from", str(file)])
        written = where / f"{pipeline}.yaml"
        return result, written.read_text() if written.exists() else ""

    return make


def lines(*documents: object) -> str:
    return "".join(f"{json.dumps(document)}\n" for document in documents)


def event(number: int) -> dict[str, Any]:
    """As webhooks have them."""
    actor = {"id": number % 3, "login": "ada"}
    head = {"id": str(7 * number), "type": ["push", "fork"][number % 2], "created_at": "2026-03-01T00:00:07Z"}
    return {**head, "actor": actor, "payload": {"commits": [{"sha": "a"}]} if number % 2 else {}, "@v": 1}


def line(number: int) -> dict[str, Any]:
    return {"no": number, "sku": f"s{number}"}


SAMPLES: list[tuple[str, str | bytes, list[str]]] = [
    (
        "events.jsonl",
        lines(*map(event, range(40))),
        ["id: id", "time: created_at", "{type: long, required: true, from: actor.id}", 'from: "@v"', "by: [type]",
         "payload_commits: {type: json, from: payload.commits}"],
    ),
    (
        "clicks.json.gz",
        gzip.compress(json.dumps([{"user": n % 4, "seq": n // 4, "t": MARCH * 1000 + n} for n in range(20)]).encode()),
        ["id: none", "time: t ", "format: epoch_ms"],
    ),
    (
        "batches.jsonl",
        lines(*({"sent_at": "2026-03-01T00:00:00Z", "host": "h", "events": [
            {"id": f"{n}-{k}", "time": MARCH + k} for k in range(3)]} for n in range(9))),
        ["each: events ", "id: id ", "time: time", "from: $.host"],
    ),
    (
        "orders.jsonl",
        lines(*({"orderId": n, "placedAt": MARCH + n, "lines": [line(1), line(2)]} for n in range(9))),
        ["id: order_id ", "time: placed_at ", "type: json"],
    ),
    (
        "ratings.csv",
        "Wann;Wer;Betrag;ok\n"
        + "".join(f"0{n}.03.2026 10:00;k{n};{n},50;{['no', 'yes'][n % 2]}\n" for n in range(1, 9)),
        ["id: none", "time: wann", 'format: "%d.%m.%Y %H:%M"', 'decimal: ","', "true_values: [\"yes\"]"],
    ),
    (
        "access.csv",
        "".join(f"h{n}\t01/Mar/2026:00:00:0{n} +0000\t/a\t200\t{n or '-'}\n" for n in range(9)),
        ["header: [column_1, ", 'delimiter: "\\t"', 'null_values: ["-"]', "column_5: {type: long}"],
    ),
    (
        "pipes.csv",
        "event_id|at|v\n" + "".join(f"e{n}|2026-03-01T00:00:0{n}Z|{n}\n" for n in range(9)),
        ["id: event_id ", 'delimiter: "|"', "v:        {type: long, required: true}"],
    ),
    (
        "traces.jsonl",
        lines(*({"trace": f"{n:08x}-1111-4111-8111-111111111111", "host": f"h{n}"} for n in range(9))),
        ["id: trace ", "time: arrival "],
    ),
    (
        "readings.jsonl",
        lines(*({"sensorId": n % 5, "seq": n // 5, "at": MARCH + n} for n in range(30))),
        ["id: [sensor_id, seq]", "time: at "],
    ),
    (
        "quoted.csv",
        '"ts";"wert";"aktiv"\n' + "".join(f'"{MARCH},{n}5";"{n},5";"{["ja", "nein"][n % 2]}"\n' for n in range(9)),
        ["time: ts ", "format: epoch_s", 'decimal: ","', "true_values: [ja]"],
    ),
    (
        "java.jsonl",
        lines(*({"_id": {"$oid": f"{n:024x}"}, "api_version": "2026-03-01"} for n in range(1, 9))).replace(
            "}\n", ', "time": 1.77232320E9}\n'),
        ["id: id_oid ", "time: time ", "format: epoch_s", "api_version: {type: string"],
    ),
    ("access.jsonl", lines(*({"time": f"[01/Mar/2026:00:00:0{n} +0000]"} for n in range(9))),
     ["time: time ", 'format: "[%d/%b']),
    ("nul.csv", "id\0,at,\"a\"\"b\",c,c\na,2026-01-01,1,2,3\n",
     ["fields:\n    at: {type: timestamp, required: true}", "a path can have: 4 keys"]),
    ("none.csv", "id,at\n", ["id: none", "    id: {type: string}   # no value in the sample"]),
    ("days.csv", "window_start_day,id\n" + "".join(f"{n % 2}x,{n}\n" for n in range(9)), ["by: [window_start_day_]"]),
    ("digits.csv", f"{'123456789' * 5}\n" * 9, ["header: [column_1]", "{type: string, required: true}   # a double"]),
    ("blank.csv", " \n\t\na,b\n1,2\n", ["a: {type: long", "b: {type: long"]),
    ("gaps.csv", "a;b\n\n\n1;2\n\n\n3;4\n\n\n", ["    a: {type: long", "    b: {type: long"]),
    ("codes.csv", "01067,Dresden\n01069,Dresden\n", ["header: [column_1, column_2]", "column_1: {type: string"]),
    ("one.csv", "a;b\n" + '"1,5"\n' * 9, ['from: "a;b"', 'decimal: ","']),
    ("maps.jsonl", lines(*({"n": n, "by_user": {f"u{n}{k}": 1 for k in range(9)}} for n in range(9))),
     ["by_user: {type: json, required: true}", "time: arrival"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected"), SAMPLES, ids=[name for name, *_ in SAMPLES])
def test_samples(made: Any, name: str, content: str | bytes, expected: list[str]) -> None:  # noqa: ANN401
    result, text = made(content, name)
    assert result.exit_code == 0, result.output
    assert [part for part in expected if part not in text] == [], text
    assert ", 0 filtered, 0 rejected" in result.output


def test_some_batches_are_empty(made: Any) -> None:  # noqa: ANN401
    trail = [[{"eventID": f"{n}-{k}", "eventTime": "2026-03-01T00:00:00Z"} for k in range(n % 4)] for n in range(20)]
    result, text = made(lines(*({"Records": records} for records in trail)))
    assert "each: Records " in text and "id: event_id " in text
    assert "35 records: 30 accepted, 5 filtered, 0 rejected" in result.output


def test_one_record_has_no_batch_but_a_number(made: Any) -> None:  # noqa: ANN401
    batches = [{"Records": [{"eventID": str(n), "eventTime": "2026-03-01T00:00:00Z"}] if n else 5} for n in range(200)]
    result, text = made(lines(*batches))
    assert "each: Records " in text
    assert "200 records: 199 accepted, 0 filtered, 1 rejected" in result.output


class Counted(list[Any]):
    """An array that counts how often it is gone through."""

    passes = 0

    def __iter__(self) -> Iterator[Any]:
        type(self).passes += 1
        return super().__iter__()


def test_a_batch_is_gone_through_as_often_however_long_it_is() -> None:
    passes = []
    for length in (5, 500):
        Counted.passes = 0
        batch = Counted({"n": n, "t": "2026-02-01T00:00:00Z"} for n in range(length))
        found = sample.Sample(1, lambda _: iter(()), [{"id": 1, "e": batch}])
        assert "each: e " in pipeline_text(found, "p", NOW, origin="x", topic=None)
        passes.append(Counted.passes)
    assert passes[0] == passes[1] > 0


def test_parquet_has_types_of_its_own(made: Any) -> None:  # noqa: ANN401
    rows = [
        {
            "id": n,
            "at": NOW,
            "amount": 1.5,
            "who": {"name": "ada", "tags": ["x"]},
            "took": timedelta(n),
            "laps": [timedelta(n)],
        }
        for n in range(3)
    ]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    result, text = made(file.getvalue(), "rows.parquet")
    assert ", 0 rejected" in result.output
    for part in ("id: id ", "time: at ", "amount:   {type: double", "from: who.name", "who_tags: {type: json"):
        assert part in text
    assert "took" not in text and "laps" not in text and "durations" in text and "2 keys" in text, "they have no text"


def test_columns_of_parquet_that_no_path_can_name(made: Any) -> None:  # noqa: ANN401
    nanos = pa.array([MARCH * 10**9 + 7], pa.timestamp("ns"))
    one = pa.array([1])
    table = pa.table([one, one, one, pa.array([{'x"': 1}]), nanos], names=['a"b', "b", "b", "s", "at"])
    file = io.BytesIO()
    pq.write_table(table, file)
    result, text = made(file.getvalue(), "rows.parquet")
    assert "1 accepted" in result.output
    assert "    s:  {type: json" in text and kinds.CUT_OFF in text and "a path can have: 3 keys" in text


NAN, HASH = float("nan"), b"\xff\0"
BAD_TEXT = pa.array([HASH, *[b"a"] * 199], pa.binary()).view(pa.string())
FAR = pa.array([1 << 62, *[MARCH * 3000] * 199], pa.timestamp("ms"))


@pytest.mark.parametrize(
    ("column", "field", "rejected"),
    [
        (pa.array([NAN, 0.5] * 9), "{type: string, required: true}   # 9 of 18 are no double: 'nan'", 0),
        (pa.array([NAN] * 9, pa.float32()), "{type: string, required: true}   # 9 of 9 are no double: 'nan'", 0),
        (pa.array([NAN, *[0.5] * 199]), "{type: double}   # 1 of 200 are none: 'nan'", 1),
        (pa.array([HASH] * 9), "", 0),
        (pa.array([HASH] * 9, pa.binary(2)), "", 0),
        (pa.array([HASH, b"a"] * 9), "", 0),
        (BAD_TEXT.dictionary_encode(), "{type: string}   # 1 of 200 are none: 'bytes that are no UTF-8'", 1),
        (pa.array([[HASH]] * 9), "{type: json, required: true}", 0),
        (FAR, "{type: timestamp}   # 1 of 200 are none: '4611686018427387904000 microseconds sinc'", 1),
        (pa.array([[timedelta(1)], None] * 9), "", 0),
    ],
)
def test_columns_of_parquet_are_held_against_their_values(
    made: Any,  # noqa: ANN401
    column: pa.Array,
    field: str,
    rejected: int,
) -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"id": range(len(column)), "x": column}), file)
    result, text = made(file.getvalue(), "rows.parquet")
    assert f"{len(column) - rejected} accepted, 0 filtered, {rejected} rejected" in result.output
    declared = [line.partition("x:  ")[2] for line in text.splitlines() if line.startswith("    x:")]
    assert declared == ([field] if field else []), text
    assert bool(field) or ("(durations, bytes)" in text and ": 1 key" in text)


def test_nothing_is_overwritten(made: Any) -> None:  # noqa: ANN401
    _, text = made(lines(event(1)))
    result, again = made(lines({"other": 1}))
    assert isinstance(result.exception, UsageError)
    assert "p.yaml is there already" in str(result.exception)
    assert again == text


RAGGED = "id,name,at\n" + "".join(f"{n},n{n},2026-01-01T00:00:0{n % 10}Z\n" for n in range(30))


@pytest.mark.parametrize(
    "content",
    [
        RAGGED + "30,x,2026-01-01T00:00:00Z,too many\n",
        RAGGED.replace(",", ";") + "30;x;2026-01-01T00:00:00Z;too many\n",
    ],
)
def test_one_ragged_row_hides_no_delimiter(made: Any, content: str) -> None:  # noqa: ANN401
    result, text = made(content, "ragged.csv")
    assert "31 records: 30 accepted, 0 filtered, 1 rejected" in result.output
    assert "id:   {type: long, required: true}" in text, "a row that is none says nothing of the others"
    assert "name:" in text and "delimiter" not in text


def test_a_broken_parquet_gives_a_sentence(made: Any) -> None:  # noqa: ANN401
    result, text = made(b"PAR1xxxxPAR1", "broken.parquet")
    assert isinstance(result.exception, TwofoldError) and "is no Parquet" in str(result.exception)
    assert text == ""


def test_what_the_producer_cannot_cut_is_landed(made: Any) -> None:  # noqa: ANN401
    array = json.dumps([{"id": number, "at": MARCH * 1000 + number} for number in range(9)], indent=1)
    assert "twofold land" in made(array, "array.json", "a")[0].output
    assert "twofold produce" in made(lines(*json.loads(array)), "lines.jsonl", "b")[0].output


@pytest.mark.parametrize(
    ("content", "name", "pipeline", "said"),
    [
        ("", "e.jsonl", "p", "has no record with a field, among 0 records"),
        ("[1]\n", "e.jsonl", "p", "has no record with a field, among 1 record"),
        ('{\n "id": 1\n}\n', "e.json", "p", "has no record with a field, among 3 records"),
        ("{", "e.txt", "p", "has an unknown ending"),
        (lines(event(1)), "e.jsonl", "P", "cannot be a pipeline's name"),
        ("id;at\na;Müller\nb;Jörg\n".encode("latin-1"), "latin.csv", "p", "remedy: write them as UTF-8"),
        ("", "e.csv", "p", "the whole file would be set aside: the file has no header"),
        (" \n\n", "e.csv", "p", "the whole file would be set aside: the file has no header"),
        ("id\0\na\n", "e.csv", "p", "the header has NUL characters"),
        ("id,id\n1,2\n", "e.csv", "p", "no field with a name of its own that a path can have"),
        ('{"a\\"b": 1}\n', "e.jsonl", "p", "no field with a name of its own that a path can have"),
        ('id,"at\na,b\n', "e.csv", "p", "the header has no end: the quoted cell that opens in line 1 is not closed"),
        ('id,at\na,x"y\n', "e.csv", "p", "remedy: send or take records that hold what the reasons ask for"),
        ("sep=;\r\nid;at;n\r\na;x;1\r\n", "excel.csv", "p", "Excel's `sep=` or a title before it is to be removed"),
    ],
)
def test_what_cannot_be_drafted(made: Any, content: str | bytes, name: str, pipeline: str, said: str) -> None:  # noqa: ANN401
    result, text = made(content, name, pipeline)
    assert said in str(result.exception)
    assert not text


@pytest.mark.parametrize(
    ("content", "name", "fields"),
    [
        ('[{"id":"a","at":"2026-01-01"},', "e.json", "id at"),
        ('[{"id":"a","at":"2026-01-01"}]]', "e.json", "id at"),
        (gzip.compress(lines(*map(event, range(900))).encode(), mtime=0)[:-9], "e.jsonl.gz", "id at"),
        *((f'id{by}at\na{by}"2026\n', "e.csv", "id at") for by in ",;\t"),
        *((f'id{by}at\na{by}2026-01-01\nb{by}"2026\nc{by}d\n', "e.csv", "id at") for by in ",;\t"),
        ('id|at\na|"2026\n', "e.csv", "id|at"),
    ],
)
def test_a_file_that_would_be_set_aside(
    made: Any,  # noqa: ANN401
    tmp_path: Path,
    content: str | bytes,
    name: str,
    fields: str,
) -> None:
    _, definition = made(lines(dict.fromkeys(re.split("[ |]", fields), "2026-01-01")), "sound.jsonl", "sound")
    if "|" in fields:
        definition += 'files: {delimiter: "|"}\n'
    (tmp_path / "sound.yaml").write_text(definition)
    result, text = made(content, name)
    tried = CliRunner().invoke(cli, ["try", str(tmp_path / "sound.yaml"), str(tmp_path / name)])
    assert "the whole file would be set aside: " in tried.output
    assert (str(result.exception), text) == (tried.output.strip(), "")


def test_what_is_cut_by_the_sample_is_no_fault() -> None:
    for content, name in ((b'[{"a": 1},{"a"', "e.json"), (b'a,b\n1,2\n3,"4', "e.csv")):
        with pytest.raises(SetAside):
            sample.of_file(partial(io.BytesIO, content), name)
        assert sample.of_file(partial(io.BytesIO, content), name, is_cut=True).count == 1


@pytest.mark.parametrize("name", ["events.jsonl", "63"])
def test_a_pipe_is_read_once(tmp_path: Path, name: str) -> None:
    """As `--from <(zcat events.jsonl.gz)` gives one: opened again, it would wait for a writer for ever."""
    pipe = tmp_path / name
    os.mkfifo(pipe)
    Thread(target=pipe.write_text, args=(lines(*map(event, range(20))),), daemon=True).start()
    result = CliRunner().invoke(cli, ["--pipelines", str(tmp_path), "init", "p", "--from", str(pipe)])
    assert (result.exit_code, result.exception) == (0, None)
    assert "produce p --from FILE" in result.output


def test_no_fault_names_a_file_that_is_not_there(made: Any, tmp_path: Path) -> None:  # noqa: ANN401
    """Neither the name of a topic that another pipeline has, nor a draft that no definition can be."""
    made(lines(event(1)))
    (tmp_path / "pipelines/p.yaml").rename(tmp_path / "pipelines/other.yaml")
    result, _ = made(lines(event(1)))
    assert 'its name would be "p", which ' in str(result.exception) and "other.yaml has too" in str(result.exception)
    result, text = made(lines({"a" * (1 << 20): 1}), pipeline="q")
    assert "the draft of " in str(result.exception) and "bytes, expected at most" in str(result.exception)
    assert "tmp/tmp" not in str(result.exception) and not text


AVRO = {
    "type": "record", "name": "p",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "record", "name": "a", "fields": [
            {"name": "utc", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}},
        {"name": "v", "type": ["null", "int"]},
    ],
}  # fmt: skip


def avro(number: int) -> bytes:
    """A record as a serializer with a registry writes it."""
    body = io.BytesIO()
    record = {"id": str(number), "at": {"utc": NOW - timedelta(days=number)}, "v": number or None}
    fastavro.schemaless_writer(body, fastavro.parse_schema(AVRO), record)
    return b"\0\0\0\0\7" + body.getvalue()


def of_kafka(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] = (),
    headers: Sequence[list[tuple[str, bytes | None]]] = (),
) -> list[KafkaRecord]:
    """As they lie in partition 0."""
    found = zip_longest(values, keys[: len(values)], headers[: len(values)])
    return [KafkaRecord(0, place, value, key, more or [], 0) for place, (value, key, more) in enumerate(found)]


def test_keys_and_headers_of_a_topic(tmp_path: Path) -> None:
    values = [json.dumps({"no": n % 3, "v": n}).encode() for n in range(9)]
    keys = [f"k{n}".encode() for n in range(9)]
    headers: list[list[tuple[str, bytes | None]]] = [
        [("ce_type", b"new" if n % 2 else b"old"), ("ce_time", b"2026-03-01T00:00:0%dZ" % n), ("rare", None)]
        for n in range(9)
    ]
    path = tmp_path / "p.yaml"
    found = sample.of_records(of_kafka([*values, b"{"], keys, [*headers, []]), no_schemas)
    path.write_text(pipeline_text(found, "p", NOW, origin="topic t", topic="t"))
    text = path.read_text()
    for part in ("  id: key   # no two of 9", "from: {key: true}", "time: ce_time ", "from: {header: ce_type}"):
        assert part in text, text
    assert "rare" not in text
    assert tried(path, found).outcomes == {"accepted": 9, "rejected": 1}
    ids = [json.dumps({"id": f"k{n}", "at": MARCH * 1000}).encode() for n in range(9)]
    text = pipeline_text(sample.of_records(of_kafka(ids, keys), no_schemas), "p", NOW, origin="t", topic="t")
    assert "  id: id   # no two of 9 different records have the same; Kafka's key is the same" in text
    assert "{key: true}" not in text
    binary = pipeline_text(
        sample.of_records(of_kafka(values, [b"\xff"] * 9), no_schemas), "p", NOW, origin="t", topic="t"
    )
    assert "key" not in binary.partition("event:")[2].partition("views:")[0].replace("key that", "")


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ([json.dumps(event(n)).encode() for n in range(5)], ""),
        ([b"\0\0\0\0\7" + json.dumps(event(n)).encode() for n in range(5)], ", format: confluent-json"),
        ([avro(n) for n in range(5)], ", format: avro"),
    ],
)
def test_the_values_of_a_topic(tmp_path: Path, values: list[bytes | None], form: str) -> None:
    found = sample.of_records(of_kafka(values), lambda _: Registered("AVRO", json.dumps(AVRO)))
    text = pipeline_text(found, "p", NOW, origin="topic t", topic="t")
    assert f"topic: {{name: t, managed: false{form}}}" in text
    assert "  id: id " in text
    path = tmp_path / "p.yaml"
    path.write_text(text)
    assert tried(path, found).outcomes == {"accepted": 5}


def no_schemas(_: int) -> Registered:
    """A registry that knows none."""
    raise UnknownSchema


def test_a_topic_whose_schema_nobody_knows() -> None:
    with pytest.raises(UsageError, match="neither JSON nor Avro"):
        sample.of_records(of_kafka([avro(1)]), no_schemas)


def tried(path: Path, found: sample.Sample) -> Summary:
    """What the contract says of a sample, by the file that was drafted from it."""
    pipeline, faults = check_file(path)
    assert pipeline is not None, (path.read_text(), faults)
    summary = Summary(samples_wanted=9)
    for _ in judged(pipeline, found.again(pipeline), summary):
        pass
    return summary


keys = st.one_of(
    st.sampled_from(
        ["id", "at", "a", "b", "a.b", "a[0]", "@timestamp", "$", "", "row", "none", "arrival", "_tw_x", "ID"]
    ),
    st.text(max_size=6).filter(lambda key: not re.search("[\ud800-\udfff]", key)),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.integers(MARCH, MARCH + 9), st.text(max_size=5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["2026-03-01", "2026-03-01T00:00:00Z", "01.03.2026"]),
).filter(lambda value: not (isinstance(value, str) and re.search("[\ud800-\udfff]", value)))  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)


@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(st.lists(st.dictionaries(keys, values, min_size=1, max_size=5), min_size=1, max_size=4))
def test_any_documents_give_a_sound_file_that_takes_them(
    tmp_path_factory: pytest.TempPathFactory, documents: list[dict[str, Any]]
) -> None:
    assume(any(is_key(key) for document in documents for key in document))
    found = sample.of_records(of_kafka([json.dumps(document).encode() for document in documents]), no_schemas)
    text = pipeline_text(found, "p", NOW, origin="x", topic=None)
    path = tmp_path_factory.mktemp("p") / "p.yaml"
    path.write_text(text, encoding="utf-8")
    summary = tried(path, found)
    # Fewer than four are never taken for exceptions.
    assert summary.outcomes["rejected"] <= (len(documents) >= 4), (text, summary.samples)
