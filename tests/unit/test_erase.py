"""Ids erased for good: which rows and records are of them, and that no byte of them is left, wherever it was killed."""

from __future__ import annotations

import ast
import gzip
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from spark_jobs import erase_job, rewriting
from spark_jobs.days import Scratch, scratch
from spark_jobs.erase import Eraser, Wanted
from spark_jobs.erase_files import InboxEraser
from spark_jobs.reland import Asked, Relander
from spark_jobs.tasks import of_file
from tests import lake as tables_by_hand
from tests.conftest import write_definition
from tests.lake import LocalLake
from tests.unit import test_taken
from twofold import commits, inbox, ledger, schemas, table_files, table_state, tables, taken
from twofold.catalog import LakeCatalog
from twofold.contract import judge as judge_module
from twofold.contract.judge import Judge
from twofold.contract.records import JsonRecords
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError, UsageError
from twofold.ledger import Erased
from twofold.proof import origins
from twofold.proof.findings import Check, Findings
from twofold.proof.sent import Sent
from twofold.proof.world import UNIFIED, World, connect, pinned
from twofold.reader.pinned import Pinned
from twofold.readers import read
from twofold.settings import Settings
from twofold.table_files import Place, Writer
from twofold.table_state import Boundary, Folded, Landed
from twofold.topic import TopicState

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PERSON = "person-4711-of-some-length"
OTHER = f"other-{PERSON}"
BOUND = PERSON[:16].encode()
"""What metadata tells of the id as the least of a file."""


def event(key: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"id": key, "at": NOON, "kind": "a", "value": 1, **more}


def text(key: str, **more: Any) -> bytes:  # noqa: ANN401
    return json.dumps({**event(key), "at": NOON.isoformat(), **more}).encode()


# ---- which rows ----


def rejected(pipeline: Pipeline, *payloads: bytes | None, file: str | None = None) -> pa.RecordBatch:
    """Rows of a log, as they come from Kafka unless from a file."""
    count = len(payloads)
    place = {"kafka_partition": [0] * count, "kafka_offset": range(count)} if file is None else {"file": [file] * count}
    return pa.RecordBatch.from_pydict(
        {
            pipeline.event.key: pa.nulls(count, pa.string()),
            "outcome": ["rejected"] * count,
            "reason_kind": ["missing"] * count,
            "payload": pa.array(payloads, pa.binary()),
            **place,
        }
    )


AS_JSON = PERSON.replace("p", "\\u0070")
"""The id as a sender may write it, so that no word of the record is the id."""


@pytest.mark.parametrize(
    ("payload", "held", "untold"),
    [
        (text(PERSON, kind="z"), True, 0),
        (text(PERSON, kind="z").replace(PERSON.encode(), AS_JSON.encode()), True, 0),
        (b'{"id": "%s", oops' % PERSON.encode(), True, 0),
        (b"1;%s;x" % PERSON.encode(), True, 0),
        (b'{"kind": "%s"}' % PERSON.encode(), True, 0),
        (text("else", note=PERSON), False, 0),
        (b'{"id": "x%s"' % PERSON.encode(), False, 1),
        (b"{}", False, 1),
        (b"", False, 0),
        (None, False, 0),
    ],
)
def test_a_rejected_record_is_of_an_id_as_far_as_it_tells(
    tmp_path: Path, payload: bytes | None, held: bool, untold: int
) -> None:
    wanted = Wanted(write_definition(tmp_path), frozenset([PERSON]))
    those, other = wanted.told(rejected(wanted.pipeline, payload))
    assert (those.to_pylist(), other) == ([held], untold)


NUMBER = {"id": {"type": "long", "required": True, "max_length": None}}
TENANT = {"tenant": {"type": "string", "required": True}, "kind": {"required": True}}
COMPOSITE = {"id": ["tenant", "id"], "fields": TENANT}


@pytest.mark.parametrize(
    ("declared", "ids", "rows", "expected"),
    [
        ({}, ["a"], {"id": ["a", "b", None]}, [True, False, None]),
        ({"fields": NUMBER}, ["7"], {"id": [7, 77, None]}, [True, False, None]),
        (
            COMPOSITE,
            ['["acme","7"]'],
            {"_tw_id": ['["acme","7"]', '["acme","8"]', None]},
            [True, False, None],
        ),
        (COMPOSITE, ['["?",""]', '["a\\"\nb",""]'], {"_tw_id": ['["a\\"\nb",""]', None, None]}, [True, False, None]),
        (
            {"id": "none"},
            ["kafka/0/6", "kafka/0/7"],
            {"_tw_id": ["kafka/0/5", "kafka/0/6", None]},
            [False, True, True],
        ),
    ],
)
def test_rows_are_of_an_id_by_their_key_or_place(
    tmp_path: Path, declared: dict[str, Any], ids: list[str], rows: dict[str, Any], expected: list[bool | None]
) -> None:
    wanted = Wanted(write_definition(tmp_path, event=declared), frozenset(ids))
    placed = {
        "outcome": ["accepted", "filtered", "rejected", "erased"],
        "reason_kind": [None, None, "not_json", None],
        "payload": pa.array([None, None, b"?", None], pa.binary()),
        "kafka_partition": [0, 0, 0, 0],
        "kafka_offset": [5, 6, 7, 6],
    }
    rows = {name: [*values, None] for name, values in rows.items()}
    expected = [*expected, False]
    those = wanted.those(pa.RecordBatch.from_pydict({**rows, **placed})).to_pylist()
    assert [bool(one) for one in those] == [bool(one) for one in expected]


@pytest.mark.parametrize(
    ("declared", "ids", "said"),
    [
        ({}, [], "no id is named"),
        # As of `--id "$UNSET"`: all rejected records that tell no id were taken to be of it.
        ({}, ["a", ""], "no id is named"),
        ({"fields": NUMBER}, ["x7"], "'x7' is no id: id is a whole number"),
        ({"fields": NUMBER}, ["007"], "'007' is no id: id is a whole number"),
        (COMPOSITE, ["acme/7"], "'acme/7' is no id of the fields tenant, id"),
        # Its hash in the ledger would keep no record from coming back.
        (COMPOSITE, ['["acme", "7"]'], "is no id of the fields tenant, id"),
        (COMPOSITE, ['["acme"]'], "is no id of the fields tenant, id"),
        (COMPOSITE, ['["acme",null]'], "is no id of the fields tenant, id"),
    ],
)
def test_ids_that_no_row_can_have_are_refused(
    tmp_path: Path, declared: dict[str, Any], ids: list[str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        Wanted(write_definition(tmp_path, event=declared), frozenset(ids))


def test_what_arrives_again_is_blank(tmp_path: Path) -> None:
    pipeline = write_definition(tmp_path)
    erased = Erased("id", "salt", frozenset([Erased(salt="salt").hash_of("a")]))
    records = JsonRecords([text("a"), text("b"), b"a"], [1, 2, 3])
    [(judged, rows)] = of_file(Judge(pipeline), erased, records, (4, "f.json", NOON))
    assert judged.counts() == {"erased": 1, "accepted": 1, "rejected": 1, "not_json": 1}
    first = {name: value for name, value in rows.to_pylist()[0].items() if value is not None}
    assert first == {"outcome": "erased", "landing": 4, "file": "f.json", "row": 1, "landed_at": NOON}
    assert rows["id"].to_pylist() == [None, "b", None]


# ---- files of the inbox ----

ROWS = [event("a", at=NOON.isoformat()), event(PERSON, at=NOON.isoformat()), event("c", at=NOON.isoformat())]
LINES = [json.dumps(row) for row in ROWS]
CSV = ['id,"at",note,kind,value', *(f'"{row["id"]}",{row["at"]},"x ""y""\nz",a,1' for row in ROWS)]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    made = io.BytesIO()
    fields = [("id", pa.string()), ("at", pa.string()), ("kind", pa.string()), ("value", pa.int8())]
    schema = pa.schema([pa.field(name, kind, nullable=name != "id") for name, kind in fields])
    table = pa.Table.from_pylist(rows, schema).append_column("tags", [[["x", row["id"]] for row in rows]])
    pq.write_table(table, made, row_group_size=2)
    return made.getvalue()


FILES = {
    "lines.jsonl": "\n\n".join(LINES).encode(),
    "crlf.json": ("\r\n".join(LINES) + "\r\n\r\n").encode("utf-8-sig"),
    "wide.json": "\n".join(LINES).encode("utf-16"),
    "packed.json.gz": gzip.compress("\n".join([*LINES, "not JSON"]).encode()),
    "array.json": ("[" + ",\n ".join([*LINES, "7"]) + " ]\n").encode(),
    "rows.csv": "\r\n".join([*CSV, "a,b", ""]).encode(),
    "rows.parquet": parquet(ROWS),
}


@contextmanager
def inbox_eraser(lake: LocalLake) -> Iterator[InboxEraser]:
    with scratch(lake.settings) as duck:
        yield InboxEraser(lake, duck, Wanted(lake.pipeline, frozenset([PERSON])))


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_rewritten_with_as_many_records(lake: LocalLake, name: str) -> None:
    before = put(lake, name, FILES[name])
    with inbox_eraser(lake) as eraser:
        (held,) = eraser.look([])
        eraser.erase(held)
        assert list(eraser.look([])) == []
    after = records(lake, name)
    assert [number for number, _ in after] == [number for number, _ in before]
    gone = before[1][0]
    assert [one for one in after if one[0] != gone] == [one for one in before if one[0] != gone]
    assert PERSON.encode() not in tables_by_hand.plain(lake.inbox().path / name)  # type: ignore[union-attr]


def test_a_file_that_goes_before_it_is_rewritten_is_named(lake: LocalLake) -> None:
    put(lake, "lines.jsonl", FILES["lines.jsonl"])
    with inbox_eraser(lake) as eraser:
        (held,) = eraser.look([])
        (inbox_of(lake) / "lines.jsonl").unlink()
        with pytest.raises(TwofoldError, match=r"lines\.jsonl was changed meanwhile"):
            eraser.erase(held)


def inbox_of(lake: LocalLake) -> Path:
    folder = lake.inbox()
    assert isinstance(folder, inbox.LocalFolder)
    return folder.path


def put_into_the_archive(lake: LocalLake, way: str = "") -> Path:
    """Where f.json lies then."""
    archive = lake.archive()
    assert isinstance(archive, inbox.LocalFolder)
    place = archive.path / way / inbox.archived(1, "f.json")
    place.parent.mkdir(parents=True)
    (inbox_of(lake) / "f.json").rename(place)
    return place


def test_a_file_that_a_kill_left_on_its_way_is_found_and_left_there(lake: LocalLake) -> None:
    """By a dry run, which changes nothing; what erases ends its way first."""
    fill(lake)
    there = put_into_the_archive(lake, inbox.MOVING)
    with inbox_eraser(lake) as eraser:
        (held,) = eraser.look(["f.json"])
    assert (held.file.name, there.is_file()) == (f"{inbox.MOVING}/{inbox.archived(1, 'f.json')}", True)


def test_an_archived_file_is_rewritten_too(lake: LocalLake) -> None:
    fill(lake)
    kept = put_into_the_archive(lake)
    with inbox_eraser(lake) as eraser:
        for held in eraser.look(["f.json"]):
            eraser.erase(held)
    assert kept.read_bytes() == text("xb") + b"\n{}\n"
    (taken,) = lake.landed_files()
    with kept.open("rb") as stream:
        assert (taken["sha256"], taken["size_bytes"]) == (inbox.sha256(stream), kept.stat().st_size)


def test_a_file_that_was_set_aside_meanwhile_is_known_by_its_content(lake: LocalLake) -> None:
    """Met half-written and whole again since: rewritten it was new, so its old rows came back over corrections."""
    work = test_taken.made(lake.own, lake.settings.home, "keep")
    for content, aside in (((text("a") + b"\n" + text(PERSON)).decode(), ""), ("half", "f.json")):
        test_taken.put(work, "f.json", content)
        test_taken.land(work, aside=aside)
    put(work, "f.json", text("a") + b"\n" + text(PERSON))
    with inbox_eraser(work) as eraser:
        (held,) = eraser.look([])
        eraser.erase(held)
    with work.inbox().open("f.json") as stream:
        digest = inbox.sha256(stream)
    assert [row["sha256"] == digest for row in work.landed_files()] == [True, False]
    assert taken.new_files(work.inbox().files(), taken.read_book(work).files) == []


@pytest.mark.parametrize("held_bytes", [judge_module.HELD_BYTES, 1])
def test_of_one_element_the_record_stays(
    lake: LocalLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_bytes: int
) -> None:
    monkeypatch.setattr(judge_module, "HELD_BYTES", held_bytes)
    pipeline = write_definition(tmp_path, event={"each": "items"})
    lake = LocalLake(lake.settings, pipeline, lake.own)
    schemas.ensure_tables(lake.own, pipeline)
    put(lake, "f.json", b'{"n": 1.10, "items": [%s, %s]}\n{}' % (text("a"), text(PERSON)))
    with inbox_eraser(lake) as eraser:
        for held in eraser.look([]):
            eraser.erase(held)
    assert (lake.settings.home / "bucket/landing" / lake.name / "f.json").read_bytes() == (
        b'{"n": 1.10, "items": [%s, null]}\n{}\n' % text("a")
    )


@pytest.mark.parametrize(
    ("each", "record"),
    [
        # Its text stands before it, beside it, within another element, as a key.
        ("n", b'{"user": "ID", "n": [GONE, "b"], "o": {"ID": "ID"}}'),
        ("n", b'{"m": ["ID"], "n": [["a", "ID"], {"x": "ID"}, GONE]}'),
        ("n", b'{"n": [GONE, "ID of \\"ID\\"", "ID\\\\", GONE ,\t"]}{[,:" ,GONE]}'),
        ("n", b'{"n": [\t "\xc3\xa9\xf0\x9f\x98\x80 ID\\\\\\"", GONE, "\xc3\xa9"], "\xc3\xa9": "ID"}'),
        ("a.n", b'{"n": ["ID"], "a": {"x": [{"n": ["ID"]}], "n" : [ GONE ] , "y": {}}, "b": []}'),
        ("a[1].n", b'{"a": [{"n": ["ID"]}, {"b": [[1, {}], []], "n": ["b", GONE]}, "ID"]}'),
        # Of a key that is there twice the last one counts.
        ("n", b'{"n": ["a", "ID"], "n": [GONE, "b"]}'),
        ("n", b'{"n": ["ID", "b"], "\\u006e": ["c", "d", GONE]}'),
        ("a.n", b'{"a": {"n": ["ID"]}, "a": {"n": ["ID"], "n": ["b", GONE]}}'),
    ],
)
def test_of_equal_texts_only_the_element_goes(lake: LocalLake, tmp_path: Path, each: str, record: bytes) -> None:
    """In the table GONE is an element that goes, and ID the same text elsewhere."""
    beside = {name: {"from": f"$.{name}"} for name in ("at", "kind", "value", "hidden")}
    pipeline = write_definition(tmp_path, event={"each": each, "fields": {"id": {"from": "."}, **beside}})
    lake = LocalLake(lake.settings, pipeline, lake.own)
    schemas.ensure_tables(lake.own, pipeline)
    record = b'{"at": "2026-03-01T12:00:00Z", "kind": "a", "value": 1.0, ' + record[1:].replace(b"ID", PERSON.encode())
    after = record.replace(b"GONE", b"null")
    put(lake, "f.json", record.replace(b"GONE", b'"%s"' % PERSON.encode()))
    with inbox_eraser(lake) as eraser:
        for held in eraser.look([]):
            eraser.erase(held)
    assert (inbox_of(lake) / "f.json").read_bytes().decode() == after.decode() + "\n"


def test_of_equal_numbers_only_the_element_goes(lake: LocalLake, tmp_path: Path) -> None:
    fields = {"id": {"type": "long", "max_length": None, "from": "."}}
    fields |= {name: {"from": f"$.{name}"} for name in ("at", "kind", "value", "hidden")}
    pipeline = write_definition(tmp_path, event={"each": "ids", "fields": fields})
    lake = LocalLake(lake.settings, pipeline, lake.own)
    schemas.ensure_tables(lake.own, pipeline)
    record = b'{"value": 10, "at": "2011-01-01", "kind": "a", "ids": [2, 11, %s, 12]}'
    put(lake, "f.json", record % b"1")
    with scratch(lake.settings) as duck:
        eraser = InboxEraser(lake, duck, Wanted(pipeline, frozenset(["1"])))
        for held in eraser.look([]):
            eraser.erase(held)
    assert (inbox_of(lake) / "f.json").read_bytes() == record % b"null" + b"\n"


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"rows.parquet"}))
def test_a_file_that_would_lose_more_is_left_as_it_is(
    lake: LocalLake, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where what rewrites has a fault: it is told of a record more."""
    put(lake, name, FILES[name])
    before = (inbox_of(lake) / name).read_bytes()
    without = rewriting.without

    def more(folder: inbox.Folder, name: str, pipeline: Pipeline, gone: rewriting.Gone, target: IO[bytes]) -> None:
        without(folder, name, pipeline, {**gone, records(lake, name)[0][0]: []}, target)

    monkeypatch.setattr(rewriting, "without", more)
    with inbox_eraser(lake) as eraser:
        (held,) = eraser.look([])
        assert not eraser.erase(held)
    assert "would be another one in its record" in eraser.unread[name]
    assert (inbox_of(lake) / name).read_bytes() == before


def test_a_file_that_cannot_be_rewritten_is_named_and_left(lake: LocalLake) -> None:
    """A quote that the erased row closes by chance; as an error it kept the tables from ever losing the id."""
    rows = ("id,at,kind,value,note", 'a,2026-03-01,a,1,"b', f'{PERSON},2026-03-01,"a",1,', "c,2026-03-01,a,1,x")
    put(lake, "f.csv", "\n".join([*rows, ""]).encode())
    before = (inbox_of(lake) / "f.csv").read_bytes()
    with inbox_eraser(lake) as eraser:
        (held,) = eraser.look([])
        assert not eraser.erase(held)
    assert (
        "what would be left of it fails: row 1: the quoted cell that opens in line 2 is not" in eraser.unread["f.csv"]
    )
    assert (inbox_of(lake) / "f.csv").read_bytes() == before


def required(kind: pa.DataType) -> pa.Field:
    return pa.field("x", kind, nullable=False)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.struct([required(pa.struct([required(pa.string())]))]), {"x": {"x": PERSON}}),
        (pa.list_(pa.struct([required(pa.string())]), 1), [{"x": PERSON}]),
        (pa.list_(required(pa.string_view())), [PERSON]),
        (pa.large_list(pa.binary_view()), [PERSON.encode()]),
        (pa.map_(pa.string_view(), required(pa.string())), [(PERSON, PERSON)]),
        (pa.string_view(), PERSON),
        # Its values stayed in the file, though no row had them any more.
        (pa.dictionary(pa.int8(), pa.string()), PERSON),
        (pa.list_(pa.dictionary(pa.int8(), pa.string())), [PERSON]),
        (pa.struct([required(pa.dictionary(pa.int8(), pa.string()))]), {"x": PERSON}),
    ],
    ids=str,
)
def test_of_parquet_a_column_may_have_any_type(lake: LocalLake, kind: pa.DataType, value: Any) -> None:  # noqa: ANN401
    made, rows = io.BytesIO(), [event("a"), event(PERSON), event("c")]
    other = ast.literal_eval(repr(value).replace(PERSON, "else"))
    column = pa.array([other, value, other], kind)
    table = pa.Table.from_pylist(rows).append_column(pa.field("tags", kind, nullable=False), column)
    pq.write_table(table, made, row_group_size=2)
    put(lake, "f.parquet", made.getvalue())
    with inbox_eraser(lake) as eraser:
        (held,) = eraser.look([])
        assert eraser.erase(held)
    after = pq.read_table(inbox_of(lake) / "f.parquet").to_pylist()
    before = table.to_pylist()
    assert after == [before[0], dict.fromkeys(before[1]), before[2]]
    assert PERSON.encode() not in (inbox_of(lake) / "f.parquet").read_bytes()


def put(lake: LocalLake, name: str, content: bytes) -> list[tuple[int, bytes | None]]:
    folder = lake.inbox()
    assert isinstance(folder, inbox.LocalFolder)
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / name).write_bytes(content)
    return records(lake, name)


def records(lake: LocalLake, name: str) -> list[tuple[int, bytes | None]]:
    """Number and what the contract keeps of each record."""
    with lake.inbox().open(name) as stream:
        return [
            (number, some.payload(index))
            for some in read(stream, name, lake.pipeline)
            for index, number in enumerate(some.numbers)
        ]


# ---- tables ----


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[LocalLake]:
    """Both logs in two commits, and `events` of what is in them, with two views' tables."""
    catalog = LakeCatalog("test", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/bucket/tables")
    made = LocalLake(Settings(home=tmp_path), write_definition(tmp_path), catalog)
    schemas.ensure_tables(catalog, made.pipeline)
    yield made
    catalog.engine.dispose()


def fill(lake: LocalLake) -> None:
    """Rows of the person in each table, in files with others and alone, accepted, filtered and rejected."""
    stream = [
        {**kafka(0, event("xa")), "kafka_timestamp": NOON - timedelta(days=1)},
        kafka(1, event(PERSON)),
        kafka(2, {"payload": text(PERSON, kind="z"), "reason": f"no kind of {PERSON}"}, "rejected"),
        kafka(3, event(OTHER)),
    ]
    land(lake, tables.STREAM_LOG, stream[:2], Landed(lake.name, 1, "t", {0: 2}))
    compacted(lake.table(tables.STREAM_LOG))
    land(lake, tables.STREAM_LOG, stream[2:], Landed(lake.name, 2, "t", {0: 4}))
    put(lake, "f.json", b"\n".join([text("xb"), text(PERSON, value=2)]))
    taken = lake.inbox().files()[0]
    rows = [
        {**event(key, value=number), "outcome": "accepted", "landing": 1, "file": "f.json", "row": number}
        for number, key in ((1, "xb"), (2, PERSON))
    ]
    land(lake, tables.BATCH_LOG, [{**row, "landed_at": NOON} for row in rows], Landed(lake.name, 1))
    with lake.inbox().open("f.json") as stream_:
        digest = inbox.sha256(stream_)
    names = {"landing": 1, "file": "f.json", "size_bytes": taken.size_bytes, "version": taken.version}
    tables_by_hand.append(lake.table(tables.LANDED_FILES), [{**names, "sha256": digest, "rows": 2, "landed_at": NOON}])
    united = [
        {**event(key), "layer": layer, "withdrawn": False} for key, layer in (("xa", "stream"), (PERSON, "batch"))
    ]
    land(lake, tables.EVENTS, united, Boundary(lake.name, "t", {0: 4}, 1))


def compacted(table: Table) -> None:
    """The person's rows in a new file; the old one is named as deleted, beside one that stays."""
    scan = table.scan(row_filter="kafka_offset = 1")
    with Writer(Place.of(table)) as writer:
        writer.write(scan.to_arrow())
        old = [task.file for task in scan.plan_files()]
        commits.replace(table, table.metadata.current_snapshot_id, old, writer.close(), {})


def kafka(offset: int, row: dict[str, Any], outcome: str = "accepted") -> dict[str, Any]:
    moment = NOON + timedelta(seconds=offset)
    place = {"kafka_partition": 0, "kafka_offset": offset, "kafka_timestamp": moment, "landing": 1}
    return {**row, "outcome": outcome, **place}


def land(lake: LocalLake, name: str, rows: list[dict[str, Any]], state: Landed | Boundary) -> None:
    table = lake.table(name)
    place = Place.of(table)
    with Writer(place) as writer:
        writer.write(pa.RecordBatch.from_pylist(rows, place.arrow))
        commits.append(table, writer.close(), table_state.encode(state))


def holding(folder: Path) -> list[str]:
    return tables_by_hand.holding(folder, BOUND, OTHER.encode())


def erase(lake: LocalLake, duck: Scratch) -> Eraser:
    """What the job does but for the views, which need Spark."""
    eraser = Eraser(lake, duck, Wanted(lake.pipeline, frozenset([PERSON])))
    held = {shape.name: eraser.look(shape) for shape in eraser.shapes}
    files = InboxEraser(lake, duck, eraser.wanted)
    for one in list(files.look(held[tables.BATCH_LOG].names)):
        files.erase(one)
    if any(one.files for one in held.values()) or any(map(eraser.left_behind, eraser.shapes)):
        eraser.erase_all()
        for shape in reversed(eraser.shapes):
            eraser.purge(shape.name, eraser.left_behind(shape))
    return eraser


def erased_whole(lake: LocalLake) -> None:
    assert holding(lake.settings.home / "bucket") == []
    rows = {
        name: lake.table(name).scan().to_arrow().sort_by(order).to_pylist()
        for name, order in ((tables.STREAM_LOG, "kafka_offset"), (tables.BATCH_LOG, "row"), (tables.EVENTS, "id"))
    }
    shown = {name: [(row["id"], row.get("outcome")) for row in found] for name, found in rows.items()}
    assert shown == {
        tables.STREAM_LOG: [("xa", "accepted"), (None, "erased"), (None, "erased"), (OTHER, "accepted")],
        tables.BATCH_LOG: [("xb", "accepted"), (None, "erased")],
        tables.EVENTS: [("xa", None)],
    }
    assert rows[tables.STREAM_LOG][1]["kafka_timestamp"] == NOON + timedelta(seconds=1)
    edge = table_state.boundary(lake.history(tables.EVENTS), lake.name)
    logs = (table_state.landed(lake.history(name), lake.name) for name in (tables.STREAM_LOG, tables.BATCH_LOG))
    stream, batch = logs
    assert (stream.offsets, stream.landing, batch.landing, edge.offsets) == ({0: 4}, 2, 1, {0: 4})
    (taken,) = lake.landed_files()
    assert (taken["version"], taken["rows"]) == (lake.inbox().version("f.json"), 2)
    with lake.inbox().open("f.json") as stream_:
        assert inbox.sha256(stream_) == taken["sha256"]


def test_no_byte_is_left_and_nothing_else_is_lost(lake: LocalLake) -> None:
    fill(lake)
    assert len(holding(lake.settings.home / "bucket")) > 4
    with scratch(lake.settings) as duck:
        erase(lake, duck)
        erased_whole(lake)
        edge = table_state.boundary(lake.history(tables.EVENTS), lake.name)
        assert (edge.relanded, edge.touched_days) == ((1, 1), (NOON.date(),))
        snapshots = {name: lake.table(name).metadata.snapshots for name in (tables.STREAM_LOG, tables.EVENTS)}
        assert {name: len(found) for name, found in snapshots.items()} == {tables.STREAM_LOG: 1, tables.EVENTS: 1}
        head = lake.table(tables.EVENTS).metadata_location
        erase(lake, duck)
        assert lake.table(tables.EVENTS).metadata_location == head


@pytest.mark.parametrize("killed_after", ["batch_log", "stream_log", "events", "expiry", "orphan"])
def test_a_second_run_finishes_the_first(lake: LocalLake, killed_after: str) -> None:
    fill(lake)
    with scratch(lake.settings) as duck:
        eraser = Eraser(lake, duck, Wanted(lake.pipeline, frozenset([PERSON])))
        if killed_after == "orphan":
            # A job that was killed has left a file that no commit names, and a commit that was lost a manifest of it.
            table = lake.table(tables.STREAM_LOG)
            with Writer(Place.of(table)) as writer:
                writer.write(pa.RecordBatch.from_pylist([kafka(9, event(PERSON))], Place.of(table).arrow))
                files = writer.close()
            draft = commits._Draft(table, Operation.APPEND)
            draft.added(files)
        for shape in eraser.shapes:
            if killed_after != "orphan":
                eraser.erase(shape, (0, 0))
            if shape.name == killed_after:
                break
        if killed_after == "expiry":
            table = lake.table(tables.STREAM_LOG)
            past = [one.snapshot_id for one in table.metadata.snapshots[:-1]]
            commits.tidy(table, past)
            assert holding(lake.settings.home / "bucket")
        erase(lake, duck)
        erased_whole(lake)


def test_rows_are_read_few_at_once_and_written_together(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    grouped = table_files.grouped

    def counting(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in grouped(held := list(batches)):
            read.extend(map(len, held))
            yield rows

    monkeypatch.setattr(table_files, "grouped", counting)
    rows = [kafka(number, {"payload": text(PERSON) if number == 7 else b"{"}, "rejected") for number in range(1000)]
    land(lake, tables.STREAM_LOG, rows, Landed(lake.name, 1, "t", {0: 1000}))
    with scratch(lake.settings) as duck:
        Eraser(lake, duck, Wanted(lake.pipeline, frozenset([PERSON]))).erase(tables.stream_log(lake.pipeline), (0, 0))
    # Each may hold a record of 1 MiB, or of more; in one array DuckDB gives less than 2 GiB.
    assert max(read) <= 256
    table = lake.table(tables.STREAM_LOG)
    (task,) = table.scan().plan_files()
    with table.io.new_input(task.file.file_path).open() as stream:
        assert pq.read_metadata(stream).num_row_groups == 1
    assert table.scan().to_arrow()["outcome"].to_pylist().count(tables.ERASED) == 1


class Beside(Eraser):
    """Erases while a stream commits between every look and the commit that follows."""

    def _rewritten(self, pinned: Pinned, file: DataFile) -> list[DataFile]:
        if pinned.made.name()[-1] == tables.STREAM_LOG:
            state = table_state.landed(self.lake.history(tables.STREAM_LOG), self.lake.name)
            end = state.offsets[0]
            row = kafka(end, event(f"live{end}"))
            ahead = replace(state, landing=state.landing + 1, offsets={0: end + 1})
            tables_by_hand.append(self.lake.table(tables.STREAM_LOG), [row], ahead)
        return super()._rewritten(pinned, file)


def test_beside_a_stream_that_commits_all_the_time(lake: LocalLake) -> None:
    fill(lake)
    (view,) = lake.pipeline.views.values()
    table = schemas.ensure_view(lake.own, lake.pipeline, view, tables.stream_view_name(view))

    def filled() -> int | None:
        """The stream fills its view from all that the log has."""
        head = lake.history(tables.STREAM_LOG).head
        tables_by_hand.append(lake.table(table.name()[-1]), [], Folded(head, fingerprint.view(lake.pipeline, view)))
        return lake.history(table.name()[-1]).head

    filled()
    with scratch(lake.settings) as duck:
        eraser = Beside(lake, duck, Wanted(lake.pipeline, frozenset([PERSON])))
        ledger.enter(lake, [PERSON], "me", "")
        eraser.erase_all()
        landed = table_state.landed(lake.history(tables.STREAM_LOG), lake.name)
        assert (landed.offsets, landed.relanded) == ({0: 6}, 1)
        assert lake.table(tables.STREAM_LOG).scan().to_arrow().num_rows == 6
        assert not eraser.is_filled_again(view)
        before = lake.history(tables.STREAM_LOG).head
        land(lake, tables.STREAM_LOG, [kafka(6, event("after"))], replace(landed, landing=9, offsets={0: 7}))
        head = filled()
        assert eraser.is_filled_again(view)
        for name in (table.name()[-1], *(shape.name for shape in reversed(eraser.shapes))):
            eraser.purge(name)
    kept = {name: list(lake.history(name).snapshots) for name in (tables.STREAM_LOG, table.name()[-1])}
    # What a running query may have read since stays.
    assert kept == {tables.STREAM_LOG: [before, lake.history(tables.STREAM_LOG).head], table.name()[-1]: [head]}
    assert holding(lake.settings.home / "bucket" / "tables") == []


def test_no_commit_brings_in_what_was_read_before(lake: LocalLake) -> None:
    fill(lake)
    before = ledger.read(lake, lake.table(tables.STREAM_LOG))
    assert not before.hashes
    assert ledger.enter(lake, [PERSON], "me", "") == 1
    assert ledger.enter(lake, [PERSON, OTHER], "me", "") == 1
    table = lake.table(tables.STREAM_LOG)
    with pytest.raises(CommitFailedException, match=r"twofold\.erased"):
        commits.append(table, [], {}, [before.unchanged])
    after = ledger.read(lake, table)
    assert (PERSON in after, OTHER in after, "a" in after) == (True, True, False)
    assert PERSON not in str(lake.table(tables.LEDGER).scan().to_arrow().to_pylist())
    commits.append(table, [], {}, [after.unchanged])


def test_reland_does_not_bring_it_back(lake: LocalLake, tmp_path: Path) -> None:
    """Neither where the file still holds it, nor where its record has another outcome by the definition of today."""
    fill(lake)
    with scratch(lake.settings) as duck:
        ledger.enter(lake, [PERSON], "me", "")
        Eraser(lake, duck, Wanted(lake.pipeline, frozenset([PERSON]))).erase(tables.batch_log(lake.pipeline), (0, 0))
        other: Pipeline = write_definition(tmp_path, name=lake.name, event={"fields": {"value": {"max": 1}}})
        schemas.ensure_tables(lake.own, other)
        changed = LocalLake(lake.settings, other, lake.own)
        found = Relander(changed, duck, Asked()).batch_log()
        assert (found.judged, dict(found.changes)) == (2, {})
        land(lake, tables.BATCH_LOG, [], Landed(lake.name, 1, relanded=1))
    rows = lake.table(tables.BATCH_LOG).scan().to_arrow().sort_by("row")
    assert rows["outcome"].to_pylist() == ["accepted", "erased"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_ids_come_from_a_file_as_any_editor_writes_it(
    lake: LocalLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """A byte order mark was part of the first id, which was then found nowhere, and entered in the ledger."""
    monkeypatch.setattr(erase_job, "run", lambda _lake, wanted, *_: wanted.ids)
    file = tmp_path / "ids.txt"
    file.write_bytes(f"{PERSON}\r\n\nJürgen\u2028\r".encode(encoding))
    ids: Any = erase_job._work(lake, ["x"], str(file), None, None, False)
    assert ids == {PERSON, "Jürgen\u2028", "x"}


def test_a_file_of_ids_that_is_no_text_is_refused(lake: LocalLake, tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    for content in ("Jürgen".encode("latin-1"), "x".encode("utf-32")):
        file.write_bytes(content)
        with pytest.raises(UsageError, match=r"ids\.txt is no text"):
            erase_job._work(lake, [], str(file), None, None, False)


def test_a_record_whose_time_stamp_no_calendar_has_is_erased(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender took microseconds for milliseconds; it goes after the last moment that has a name."""
    beyond = 1_772_323_200_007_000_000
    sent = {**kafka(0, event(PERSON)), "kafka_timestamp": beyond}
    land(lake, tables.STREAM_LOG, [sent], Landed(lake.name, 1, "t", {0: 1}))
    topic = TopicState("sent", "t", {0: (0, 1)}, {"retention.ms": str((1 << 63) - 1)})
    monkeypatch.setattr("twofold.kafka.describe", lambda *_: topic)
    shape, expected = tables.stream_log(lake.pipeline), {(0, 0, beyond)}
    with scratch(lake.settings) as duck:
        eraser = Eraser(lake, duck, Wanted(lake.pipeline, frozenset([PERSON])))
        assert eraser.look(shape).places == expected
        for found in (expected, set[tuple[int, int, int]]()):
            told = erase_job._in_kafka(lake, duck, found)
            assert told == {"records": 1, "until": "9999-12-31T23:59:59.999999+00:00", "places": ["sent[0]@0"]}
            # From here on it is found by the blank row.
            eraser.erase(shape, (0, 0))
        assert eraser.look(shape).places == set()


def of_the_ledger(lake: LocalLake) -> Check:
    """What the proof says of erased ids."""
    names = (tables.LEDGER, tables.STREAM_LOG, tables.BATCH_LOG, tables.EVENTS)
    pins = {name: pinned(name, lake.find(name)) for name in names}
    world = World(lake, connect(lake.settings.home), Sent(lake.name, None), pins)
    for name in names[1:]:
        world.register(name, pins[name])
    world.register(UNIFIED, pins[tables.EVENTS])
    found = Findings("I4")
    origins._erased(world, found)
    return found.check()


def test_the_proof_sees_rejected_records_that_came_in_clear(lake: LocalLake) -> None:
    """As an earlier release landed them, after the id had been erased; whose the last is, nobody can tell."""
    payloads = (text(PERSON, kind="z"), text(OTHER, kind="z"), b"oops")
    rows = [kafka(number, {"payload": one}, "rejected") for number, one in enumerate(payloads)]
    land(lake, tables.STREAM_LOG, rows, Landed(lake.name, 1, "t", {0: 3}))
    assert of_the_ledger(lake).ok
    ledger.enter(lake, [PERSON], "me", "")
    found = of_the_ledger(lake)
    assert (found.ok, found.offenders) == (False, (f"{lake.pipeline.topic.name}[0]@0",))
    assert "1 rejected row of stream_log with an id that was erased; run `twofold erase" in found.text
    assert PERSON not in found.text
    with scratch(lake.settings) as duck:
        erased_now = erase(lake, duck)
        assert erased_now.look(tables.stream_log(lake.pipeline)).untold == 1
    found = of_the_ledger(lake)
    assert (found.ok, found.numbers["records_erased"]) == (True, {"stream_log": 1, "batch_log": 0})
    assert found.numbers["stream_log_rejected_without_ids"] == 1
