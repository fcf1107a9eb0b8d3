"""The producer's sources: a position always means the same record, and bytes are what they were."""

from __future__ import annotations

import gzip
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer import producer, reporting, sending
from producer.generator import Generated, identifier
from producer.producer import produce
from producer.reporting import Journal, Progress
from producer.sending import open_source, within
from producer.sources import Chunk, RecordSource, Request, Shares, chunked, split
from producer.wire import writer
from twofold.contract.judge import Judge
from twofold.contract.records import JsonRecords
from twofold.definition.load import load_file
from twofold.definition.model import Field, Pipeline, Replay
from twofold.errors import Busy, TwofoldError, UsageError
from twofold.journal import Entry
from twofold.settings import Settings
from twofold.topic import TopicState

PAYMENTS = Path(__file__).parents[1] / "pipelines" / "payments.yaml"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
lines_of_bytes = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=30)


@pytest.fixture(scope="module")
def payments() -> Pipeline:
    return load_file(PAYMENTS)


def opened(pipeline: Pipeline, **options: Any) -> RecordSource:  # noqa: ANN401
    return open_source(pipeline, Request(**options), lambda: False)


def records(chunks: Iterator[Chunk]) -> list[tuple[int, bytes, bytes | None]]:
    return [
        (chunk.first + index, value, key)
        for chunk in chunks
        for index, (value, key) in enumerate(zip(chunk.values, chunk.keys, strict=True))
    ]


def cut(whole: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    start = 0
    for size in sizes:
        yield whole[start : start + size]
        start += size
    yield whole[start:]


LINES = writer(load_file(PAYMENTS))


@given(lines=lines_of_bytes, sizes=st.lists(st.integers(1, 60), max_size=40), start=st.integers(0, 35))
def test_lines_are_the_same_however_the_file_is_cut_and_wherever_one_starts(
    lines: list[bytes], sizes: list[int], start: int
) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    found = records(chunked(split(cut(whole, sizes)), start, LINES))
    assert [(position, value) for position, value, _ in found] == list(enumerate(lines))[start:]


def test_a_huge_line_garbage_and_a_missing_last_newline_stay_as_they_are(payments: Pipeline, tmp_path: Path) -> None:
    lines = [b'{"payment_id": 7}', b"\xff\x00 garbage\r", b"", b'{"payment_id": "' + b"x" * 10_000_000 + b'"}', b"{}"]
    plain, zipped = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz"
    plain.write_bytes(b"\n".join(lines))
    zipped.write_bytes(gzip.compress(b"\n".join(lines)))
    for path in (plain, zipped):
        assert records(opened(payments, from_file=str(path)).chunks(0)) == [
            (position, line, b"7" if position == 0 else None) for position, line in enumerate(lines)
        ]
    assert opened(payments, from_file=str(plain)).total() == len(lines)


def started(folder: Path, source: RecordSource, *, position: int = 0, restart: bool = False) -> Journal:
    """The journal that a run begins with; `position`: how far it comes."""
    path = reporting.path_of(Settings(home=folder), "p", source.identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    book = reporting.start(path, "p", TopicState("p", "A", {0: (0, 9)}, {}), source, restart)
    if position:
        book.save(Progress(position=position, exhausted=True))
    return book


def test_standard_input_has_nothing_to_resume_though_the_process_has_the_same_id(
    payments: Pipeline, tmp_path: Path
) -> None:
    started(tmp_path, opened(payments, from_file="-"), position=100)
    book = started(tmp_path, opened(payments, from_file="-"))
    assert (book.entry.position, book.entry.exhausted, book.note) == (0, False, "")


def test_standard_inputs_at_once_have_journals_of_their_own_and_a_file_has_one(
    payments: Pipeline, tmp_path: Path
) -> None:
    settings, file = Settings(home=tmp_path), tmp_path / "a.jsonl"
    file.write_bytes(b"1\n")

    def held(name: str) -> AbstractContextManager[Path]:
        return reporting.held(settings, "p", opened(payments, from_file=name))

    with held("-") as first:
        with held("-") as second:
            assert first != second
        with held("-") as freed:
            assert freed == second
    with held(str(file)), pytest.raises(Busy), held(str(file)):
        pass


def sent(folder: Path, pipeline: Pipeline, path: Path) -> list[bytes]:
    """What a run sends of a file, to its end."""
    source = opened(pipeline, from_file=str(path))
    book = started(folder, source)
    sending.refuse_doubles(book, pipeline)
    found = [] if book.entry.exhausted else records(source.chunks(book.entry.position))
    book.save(Progress(position=book.entry.position + len(found), exhausted=True))
    return [value for _, value, _ in found]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_of_a_file_that_grew_only_what_is_new_is_sent(
    payments: Pipeline, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / ("a.jsonl" if pack is bytes else "a.jsonl.gz")
    without_id = replace(payments, event=replace(payments.event, id=()))

    def append(text: bytes) -> list[bytes]:
        with path.open("ab") as file:
            file.write(pack(text))
        return sent(tmp_path, without_id, path)

    assert append(b"1\n2\n") == [b"1", b"2"]
    os.utime(path, ns=(1, 1))
    assert sent(tmp_path, without_id, path) == []
    assert append(b"3\n4") == [b"3", b"4"]
    assert append(b"\n") == []
    # As of a file in which lines end with \r\n.
    assert append(b"5") == [b"5"]
    assert append(b" \r\n") == []
    assert append(b'{"half') == [b'{"half']
    assert append(b'": 5}\n6\n') == [b'{"half": 5}', b"6"]

    path.write_bytes(pack(b'1\n2\n3\n9\n5\n{"half": 5}\n6\n7\n'))
    with pytest.raises(UsageError, match="the source has changed"):
        sent(tmp_path, without_id, path)
    assert len(sent(tmp_path, payments, path)) == 8
    assert sent(tmp_path, payments, path) == []


def test_a_file_that_grew_is_gone_on_with_where_a_run_was_stopped_in_it(payments: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [b"%d" % number for number in range(200_000)]
    path.write_bytes(b"\n".join(lines))
    first = opened(payments, from_file=str(path))
    book = started(tmp_path, first)
    chunks = first.chunks(0)
    book.save(Progress(position=len(next(chunks)) - 5))
    stopped = book.entry.position
    # Stopped again before it was where it had been.
    source = opened(payments, from_file=str(path))
    again = started(tmp_path, source)
    again.save(Progress(position=again.entry.position))
    with path.open("ab") as file:
        file.write(b"\nlast")
    assert sent(tmp_path, payments, path) == [*lines[stopped:], b"last"]


def test_a_cut_gzip_file_gives_an_error_and_not_a_silent_end(payments: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b"%d\n" % number for number in range(10_000)))[:-2000])
    with pytest.raises(TwofoldError, match="cannot be read to its end"):
        records(opened(payments, from_file=str(path)).chunks(0))


def test_parquet_is_not_taken_for_lines(payments: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1....")
    with pytest.raises(UsageError, match="Parquet"):
        opened(payments, from_file=str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"PK\3\4....", "a zip archive, not JSON lines"),
        ("a.jsonl", gzip.compress(b"1\n"), "gzipped, not JSON lines"),
        ("a.jsonl.gz", b"1\n", "cannot be read to its end"),
        ("a" * 300, None, "cannot be read"),
    ],
    ids=count(),
)
def test_what_is_no_file_of_lines_is_told(
    payments: Pipeline, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    """Packed files were sent as lines that are no JSON."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TwofoldError, match=said) as raised:
        records(opened(payments, from_file=str(tmp_path / name)).chunks(0))
    assert raised.value.remedy


def test_a_standard_input_that_is_closed_or_cannot_be_read_is_told(
    payments: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended with a stack trace."""
    folder = os.open(tmp_path, os.O_RDONLY)
    with monkeypatch.context() as patched, os.fdopen(os.dup(0), "rb") as other:
        patched.setattr("sys.stdin", other)
        os.dup2(folder, other.fileno())
        with pytest.raises(TwofoldError, match="standard input cannot be read"):
            records(opened(payments, from_file="-").chunks(0))
    os.close(folder)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="standard input is closed"):
        opened(payments, from_file="-")


QUERY = """
SELECT id AS payment_id, CAST(price AS DECIMAL(12,2)) AS amount, note,
       TIMESTAMPTZ '2026-01-01 00:00:00+02' AS paid_at, DATE '2026-01-02' AS booked_on,
       TIMESTAMP '2026-01-01' + to_seconds(secs) AS send_at
FROM source  -- a comment at the end
"""


@pytest.fixture
def table(payments: Pipeline, tmp_path: Path) -> Pipeline:
    (tmp_path / "t.csv").write_text("id,price,note,secs\n1,1.10,NA,30\n2,2.25,,10\n3,3,c,20\n4,4,d,10\n")
    return replace(payments, replay=Replay("t.csv", QUERY), source_file=str(tmp_path / "p.yaml"))


def test_rows_come_in_the_order_of_sending_without_nulls_and_with_exact_values(table: Pipeline) -> None:
    source = opened(table)
    found = records(source.chunks(0))
    assert source.total() == 4
    assert [key for *_, key in found] == [b"2", b"4", b"3", b"1"]
    assert found[0][1] == (b'{"payment_id":2,"amount":2.25,"paid_at":"2025-12-31T22:00:00Z","booked_on":"2026-01-02"}')
    assert orjson.loads(found[3][1])["note"] == "NA"
    assert [records(source.chunks(start)) for start in range(5)] == [found[start:] for start in range(5)]


def test_what_a_csv_file_writes_is_what_is_sent(payments: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "id,price,note,account,risk\n1,12345678901234567.89,1.10,2026-01-01T00:00:00Z,0.5\n"
        "2,-0.1,2,2026-01-02T00:00:00Z,1e-3\n3,.250,,,\n"
    )
    query = "SELECT id AS payment_id, price AS amount, note, account, risk FROM source"
    source = opened(replace(payments, replay=Replay("t.csv", query), source_file=str(tmp_path / "p.yaml")))
    assert [value for _, value, _ in records(source.chunks(0))] == [
        b'{"payment_id":1,"amount":12345678901234567.890,"note":"1.10","account":"2026-01-01T00:00:00Z","risk":0.5}',
        b'{"payment_id":2,"amount":-0.100,"note":"2","account":"2026-01-02T00:00:00Z","risk":0.001}',
        b'{"payment_id":3,"amount":0.250}',
    ]
    assert source.version["texts"] == ["account", "note"]


@pytest.mark.parametrize(
    ("kind", "cells", "expected"),
    [
        ("decimal(30,4)", ["12345678901234567.10", "1e5", "-2.5E-3", "7"],
         ["12345678901234567.1000", "100000.0000", "-0.0025", "7.0000"]),
        ("long", ["9007199254740993", "5.0"], ["9007199254740993.0", "5.0"]),
        ("decimal(38,0)", ["99999999999999999999", "1"], ["99999999999999999999", "1"]),
    ],
)  # fmt: skip
def test_numbers_of_a_csv_file_are_exact_however_they_are_written(
    tmp_path: Path, kind: str, cells: list[str], expected: list[str]
) -> None:
    (tmp_path / "t.csv").write_text("".join(f"{cell}\n" for cell in ["v", *cells]))
    fields = f"{{id: {{type: string}}, v: {{type: '{kind}'}}}}"
    replay = "replay: {source: t.csv, query: SELECT v FROM source}"
    text = f"name: p\ntopic: p\nlateness: 1 minute\nevent: {{id: none, time: arrival, fields: {fields}}}\n{replay}\n"
    (tmp_path / "p.yaml").write_text(text)
    source = opened(load_file(tmp_path / "p.yaml"))
    assert [value for _, value, _ in records(source.chunks(0))] == [f'{{"v":{one}}}'.encode() for one in expected]
    if kind.startswith("decimal(30"):
        with (tmp_path / "t.csv").open("a") as file:
            file.write("1e300\n")
        with pytest.raises(TwofoldError, match="has more digits than a double holds"):
            opened(load_file(tmp_path / "p.yaml"))


@pytest.mark.parametrize(
    "note", ["printf('%05d', note)", "note + 1", "strftime(account, '%d.%m.%Y')", "date_trunc('month', account)"]
)
def test_a_query_that_computes_with_a_text_has_it_as_it_was_guessed(
    payments: Pipeline, tmp_path: Path, note: str
) -> None:
    """It ended with an error of DuckDB, so the producer of a declared replay did not start any more."""
    (tmp_path / "t.csv").write_text("id,note,account\n1,1234,2026-01-01\n")
    query = f"SELECT id AS payment_id, {note} AS note FROM source"
    source = opened(replace(payments, replay=Replay("t.csv", query), source_file=str(tmp_path / "p.yaml")))
    assert len(records(source.chunks(0))) == 1
    assert "texts" not in source.version


def test_a_file_that_is_put_there_again_as_it_was_is_gone_on_with(payments: Pipeline, tmp_path: Path) -> None:
    file, query = tmp_path / "t.csv", "SELECT id AS payment_id FROM source"

    def there(text: str, at: int) -> RecordSource:
        file.write_text(text)
        os.utime(file, (at, at))
        return opened(replace(payments, replay=Replay("t.csv", query), source_file=str(tmp_path / "p.yaml")))

    first = there("id\n1\n2\n", 1)
    before = Entry("p", "t", "i", first.identity, first.version, {}, positions=(1,))
    assert there("id\n1\n2\n", 2).goes_on(before) == 1
    assert there("id\n1\n3\n", 1).goes_on(before) is None
    # A journal of an earlier version knows only the time.
    earlier = replace(before, version={name: one for name, one in first.version.items() if name != "sha256"})
    assert there("id\n1\n2\n", 1).goes_on(earlier) == 1
    assert there("id\n1\n2\n", 2).goes_on(earlier) is None


def test_a_text_is_not_guessed_from_the_first_rows_of_a_csv_file(payments: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,note\n" + "".join(f"{number},7\n" for number in range(30_000)) + "30000,007\n")
    query = "SELECT id AS payment_id, note FROM source"
    source = opened(replace(payments, replay=Replay("t.csv", query), source_file=str(tmp_path / "p.yaml")))
    assert records(source.chunks(30_000)) == [(30_000, b'{"payment_id":30000,"note":"007"}', b"30000")]


def test_a_range_of_send_at_is_half_open(table: Pipeline) -> None:
    since = datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)
    source = opened(table, since=since, until=since + timedelta(seconds=10))
    assert [key for *_, key in records(source.chunks(0))] == [b"2", b"4"]
    assert [chunk.send_at for chunk in source.chunks(1)] == [[since.timestamp()]]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT nothing FROM source", "fails"),
        ("SELECT 1 AS x", "gives no column payment_id"),
        ("SELEC", "fails"),
        ("SELECT id AS payment_id, INTERVAL '5000000 years' AS x FROM source", "fails"),
    ],
)
def test_a_wrong_query_is_named(table: Pipeline, query: str, said: str) -> None:
    with pytest.raises(TwofoldError, match=said):
        records(opened(replace(table, replay=Replay("t.csv", query))).chunks(0))


def packed(**members: bytes) -> bytes:
    """A zip archive."""
    with BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return file.getvalue()


CHECKED = gzip.compress(b"id\n" + b"".join(b"%d\n" % number for number in range(1000)))
ARCHIVE = packed(**{"t/": b"", "t/t.csv": b"id\n" + b"".join(b"%d\n" % number for number in range(1000))})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.zip", b"no archive", "t.zip cannot be unpacked"),
        ("t.zip", ARCHIVE[:-200], "t.zip cannot be unpacked"),
        ("t.zip", ARCHIVE.replace(ARCHIVE[90:110], bytes(20), 1), "t.zip cannot be unpacked"),
        ("t.zip", packed(**{"t/": b""}), "there is no file in .*t.zip"),
        ("t.zip", packed(**{"t.parquet": b"no table"}), "fails on .*t.zip"),
        ("t.parquet", b"no table", "fails on .*t.parquet"),
        ("t.parquet", b"", "fails on .*t.parquet"),
        ("t.csv", b"", "fails on .*t.csv"),
        ("t.csv", b"\0\xff" * 5000, "fails on .*t.csv"),
        ("t.csv.gz", b"no gzip", "t.csv.gz cannot be read to its end"),
        ("t.csv.gz", CHECKED[:500], "t.csv.gz cannot be read to its end"),
        ("t.csv.gz", CHECKED[:-8] + bytes(4) + CHECKED[-4:], "t.csv.gz cannot be read to its end"),
        ("t.csv.gz", b"", "fails on .*t.csv.gz"),
    ],
    ids=count(),
)
def test_a_source_that_is_no_table_is_told(
    payments: Pipeline, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    """An archive that is none, or empty, ended with a stack trace."""
    (tmp_path / name).write_bytes(content)
    replay = Replay(name, "SELECT id AS payment_id FROM source")
    with pytest.raises(TwofoldError, match=said) as raised:
        records(opened(replace(payments, replay=replay, source_file=str(tmp_path / "p.yaml"))).chunks(0))
    assert raised.value.remedy


def test_a_table_in_a_folder_of_an_archive_is_found(payments: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "t.zip").write_bytes(ARCHIVE)
    replay = Replay("t.zip", "SELECT id AS payment_id FROM source")
    assert opened(replace(payments, replay=replay, source_file=str(tmp_path / "p.yaml"))).total() == 1000


def test_a_source_whose_name_is_too_long_is_not_found(payments: Pipeline, tmp_path: Path) -> None:
    replay = Replay("t" * 300, "SELECT 1 AS payment_id")
    with pytest.raises(TwofoldError, match="not found"):
        opened(replace(payments, replay=replay, source_file=str(tmp_path / "p.yaml")))


ALL_KINDS = Shares(duplicates=0.1, late=0.1, out_of_order=0.1, malformed=0.1, future=0.1)


def generated(pipeline: Pipeline, count: int = 2500, seed: int = 3, shares: Shares = ALL_KINDS) -> Generated:
    return Generated(Request(generate=count, seed=seed, shares=shares), NOW, writer(pipeline))


def test_the_same_seed_gives_the_same_records_from_any_position(payments: Pipeline) -> None:
    whole = records(generated(payments).chunks(0))
    assert [position for position, *_ in whole] == list(range(2500))
    later = Generated(Request(generate=2500, seed=3, shares=ALL_KINDS), NOW + timedelta(hours=5), writer(payments))
    later.memory = generated(payments).memory
    for start in (0, 1, 999, 1000, 1001, 2499):
        assert records(later.chunks(start)) == whole[start:]
    assert records(generated(payments, seed=4).chunks(0)) != whole


def ids_and_times(source: RecordSource, start: int) -> list[tuple[bytes | None, object]]:
    return [(key, key and orjson.loads(value)["paid_at"]) for _, value, key in records(source.chunks(start))]


def test_a_generated_stream_goes_on_though_its_definition_changes(payments: Pipeline, tmp_path: Path) -> None:
    before = generated(payments)
    started(tmp_path, before, position=1500)
    fields = {name: one for name, one in payments.event.fields.items() if name not in ("fee", "note")}
    narrower = replace(payments, event=replace(payments.event, fields=fields))
    after = Generated(Request(generate=2500, seed=3, shares=ALL_KINDS), NOW + timedelta(days=9), writer(narrower))
    book = started(tmp_path, after)
    assert (book.entry.position, book.note) == (1500, "")
    assert ids_and_times(after, 1500) == ids_and_times(before, 1500)
    assert not any(b'"fee"' in value for _, value, _ in records(after.chunks(1500)))


def test_no_generated_id_comes_again_at_another_time(payments: Pipeline, tmp_path: Path) -> None:
    before = generated(payments, shares=Shares())
    started(tmp_path, before, position=2500)
    sent = dict(ids_and_times(before, 0))
    again = Generated(Request(generate=2500, seed=3), NOW + timedelta(days=9), writer(payments))
    assert started(tmp_path, again, restart=True).entry.position == 0
    assert dict(ids_and_times(again, 0)) == sent
    for rate in (50, 60):
        other = Generated(Request(generate=2500, seed=3, rate=rate), NOW, writer(payments))
        started(tmp_path, other, position=2500)
        found = dict(ids_and_times(other, 0))
        assert not sent.keys() & found.keys()
        sent |= found


def test_more_of_a_generated_stream_ends_now_and_what_was_sent_stays(payments: Pipeline, tmp_path: Path) -> None:
    """Most of it was rejected: its times began where those of the first run had ended, and ran far ahead."""

    def more(count: int, days: int) -> Generated:
        now = NOW + timedelta(days=days)
        return Generated(Request(generate=count, seed=3), now, writer(payments))

    first = more(1500, 0)
    started(tmp_path, first, position=1500)
    second = more(3000, 1)
    started(tmp_path, second)
    found = ids_and_times(second, 0)
    assert found[:1500] == ids_and_times(first, 0)
    assert found[-1][1] == "2026-03-02T11:59:59.990Z"
    # Stopped before a record was acknowledged, and later in its middle, it gives the same.
    for position in (0, 2000):
        third = more(3000, 2)
        started(tmp_path, third, position=position)
        assert ids_and_times(third, 1500) == found[1500:]
    fourth = more(4000, 3)
    started(tmp_path, fourth)
    fourth_found = ids_and_times(fourth, 0)
    assert (fourth_found[:3000], fourth_found[-1][1]) == (found, "2026-03-04T11:59:59.990Z")


def test_a_stream_without_an_end_goes_on_after_one_that_had_one(payments: Pipeline, tmp_path: Path) -> None:
    """It was finished before it began, and sent nothing."""
    started(tmp_path, generated(payments), position=2500)
    for request, is_finished in ((Request(generate=2500), True), (Request(generate=0), False)):
        source = Generated(replace(request, seed=3, shares=ALL_KINDS), NOW, writer(payments))
        book = started(tmp_path, source)
        assert (book.entry.position, sending.finished(book, request)) == (2500, is_finished)


@pytest.mark.parametrize(
    ("rules", "seed"),
    [
        ("int", 2024),
        ("int, max: 1000000", 1),
        ("int, max: -1", 0),
        ("int, min: 2147482000", 5),
        ("long, min: -3", 10**9),
    ],
)
def test_generated_numbers_are_of_their_type_and_within_its_bounds(tmp_path: Path, rules: str, seed: int) -> None:
    path = tmp_path / "p.yaml"
    fields = f"{{id: {{type: {rules}, required: true}}, v: {{type: {rules}}}}}"
    path.write_text(f"name: p\ntopic: p\nlateness: 1 minute\nevent: {{id: id, time: arrival, fields: {fields}}}\n")
    pipeline = load_file(path)
    made = Generated(Request(generate=500, seed=seed), NOW, writer(pipeline))
    events = [orjson.loads(value) for _, value, _ in records(made.chunks(0))]
    assert all(keeps(pipeline.event.fields[name], value) for event in events for name, value in event.items())
    assert len({event["id"] for event in events}) == 500


@pytest.mark.parametrize("rules", ["'decimal(38,30)'", "'decimal(38,38)'", "'decimal(38,10)', min: 1e27, max: 9e27"])
def test_generated_decimals_may_have_all_their_digits(tmp_path: Path, rules: str) -> None:
    path = tmp_path / "p.yaml"
    fields = f"{{id: {{type: string, required: true}}, v: {{type: {rules}}}}}"
    path.write_text(f"name: p\ntopic: p\nlateness: 1 minute\nevent: {{id: id, time: arrival, fields: {fields}}}\n")
    pipeline = load_file(path)
    values = [value for _, value, _ in records(Generated(Request(generate=50), NOW, writer(pipeline)).chunks(0))]
    rows = Judge(pipeline).judge(JsonRecords(values, range(50)), NOW).rows
    assert rows["reason"].to_pylist() == [None] * 50


@pytest.mark.parametrize("kind", ["string", "int", "long", "string, pattern: '[a-z]{20}'"])
def test_runs_of_one_seed_have_different_ids(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "p.yaml"
    fields = f"{{id: {{type: {kind}, required: true}}}}"
    path.write_text(f"name: p\ntopic: p\nlateness: 1 minute\nevent: {{id: id, time: arrival, fields: {fields}}}\n")
    field = load_file(path).event.fields["id"]
    made = [identifier(field, seed, run, number, NOW) for seed in (0, 1) for run in (0, 1, 2) for number in range(500)]
    assert len(set(made)) == 3000


def test_where_there_is_no_room_for_another_run_ids_are_not_all_one(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    fields = "{id: {type: int, required: true, min: 1, max: 9999999}}"
    path.write_text(f"name: p\ntopic: p\nlateness: 1 minute\nevent: {{id: id, time: arrival, fields: {fields}}}\n")
    field = load_file(path).event.fields["id"]
    for run in (0, 1, 22):
        made = {identifier(field, 0, run, number, NOW) for number in range(500)}
        assert len(made) == 500
        assert 1 <= min(made) <= max(made) <= 9999999


@pytest.mark.parametrize(("start", "limit"), [(0, 2500), (1234, 2100)])
def test_generated_events_begin_and_end_anywhere(payments: Pipeline, start: int, limit: int) -> None:
    whole = records(generated(payments).chunks(0))
    made = list(generated(payments).chunks(start))
    assert records(within(chunk, limit) for chunk in made) == whole[start:limit]
    assert sum(map(len, made)) == 2500 - start


def test_generated_events_keep_every_rule_of_the_definition(payments: Pipeline) -> None:
    values = [orjson.loads(value) for _, value, _ in records(generated(payments, shares=Shares()).chunks(0))]
    assert len({event["payment_id"] for event in values}) == len(values)
    assert [fault for event in values for fault in faults(payments, event)] == []


def test_shares_come_out_as_asked(payments: Pipeline) -> None:
    found = records(generated(payments, count=20_000).chunks(0))
    keyed = Counter(key for *_, key in found)
    repeats = sum(count - 1 for key, count in keyed.items() if key is not None)
    assert keyed[None] == pytest.approx(2000, rel=0.15)
    assert repeats + keyed[None] >= 3500
    future = NOW + payments.event.max_future
    times = [datetime.fromisoformat(orjson.loads(value)["paid_at"]) for _, value, key in found if key]
    assert sum(at > future for at in times) == pytest.approx(2200, rel=0.15)


def faults(pipeline: Pipeline, event: dict[str, Any]) -> list[str]:
    """What of an event breaks a rule, judged independently of the generator."""
    missing = [f.name for f in pipeline.event.fields.values() if f.required and f.name not in event]
    return missing + [
        f"{name}={value}" for name, value in event.items() if not keeps(pipeline.event.fields[name], value)
    ]


def keeps(field: Field, value: Any) -> bool:  # noqa: ANN401
    parse: dict[str, Callable[[Any], Any]] = {
        "timestamp": datetime.fromisoformat,
        "date": date.fromisoformat,
        "decimal": lambda number: Decimal(str(number)),
    }
    parsed = parse.get(field.type.name, lambda same: same)(value)
    return (
        (not field.one_of or parsed in field.one_of)
        and (field.min is None or parsed >= field.min)
        and (field.max is None or parsed <= field.max)
        and (field.pattern is None or re.fullmatch(field.pattern, value) is not None)
        and (field.max_length is None or len(value) <= field.max_length)
        and (field.type.name not in ("int", "long") or type(value) is int)
    )


def test_what_the_options_leave_open_of_the_own_replay_is_as_declared() -> None:
    declared = Replay("t.csv", QUERY, since=NOW, until=NOW + timedelta(days=1), speed_up=60.0)

    def asked(*options: str) -> Request:
        return as_request({**produce.make_context("produce", ["p", *options]).params}, declared)

    def as_request(options: dict[str, Any], replay: Replay) -> Request:
        for name in ("pipeline", "pipelines", "verbose"):
            del options[name]
        return producer.as_request(options, replay)

    plain = asked()
    assert (plain.since, plain.until, plain.rate, plain.speed_up) == (NOW, NOW + timedelta(days=1), None, 60.0)
    other = asked("--since", "2025-01-01", "--rate", "max")
    assert (other.since, other.rate, other.speed_up) == (datetime(2025, 1, 1, tzinfo=UTC), None, None)
    for foreign in (asked("--generate", "5"), asked("--from", "x.jsonl")):
        assert (foreign.since, foreign.until, foreign.speed_up) == (None, None, None)
    made_up = as_request({**produce.make_context("produce", ["p"]).params}, Replay(generate=0, rate=7.0))
    assert (made_up.generate, made_up.rate, made_up.since) == (0, 7.0, None)
