"""What becomes of taken files: kept, archived, deleted; replaced at the last moment, and killed between two steps."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest
from s3fs.utils import FileExpired  # type: ignore[import-untyped]

from tests import lake as by_hand
from tests import small_world
from tests.conftest import write_definition
from tests.lake import LocalLake
from twofold import inbox, replay, schemas, tables, taken
from twofold.catalog import LakeCatalog
from twofold.errors import TwofoldError
from twofold.inbox import LocalFolder
from twofold.proof import file_records, origins, recount
from twofold.proof.findings import Findings
from twofold.proof.sent import Sent
from twofold.proof.world import World, connect, pinned
from twofold.settings import Settings
from twofold.table_state import Landed
from twofold.taken import TakenFiles


def made(catalog: LakeCatalog, home: Path, policy: str) -> LocalLake:
    pipeline = write_definition(home, name="p", files={"taken": policy})
    schemas.ensure_tables(catalog, pipeline)
    return LocalLake(Settings(home=home), pipeline, catalog)


def folder_of(lake: LocalLake) -> LocalFolder:
    folder = lake.inbox()
    assert isinstance(folder, LocalFolder)
    return folder


def put(lake: LocalLake, name: str, content: str) -> None:
    path = folder_of(lake).path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def land(lake: LocalLake, *, aside: str = "") -> None:
    """Take all that is new, as the batch job does; the file `aside` could not be read."""
    book = taken.read_book(lake)
    files = []
    for one in taken.new_files(lake.inbox().files(), book.files):
        with lake.inbox().open(one.file.name) as stream:
            digest = inbox.sha256(stream)
        row = {"landing": book.landing + 1, "file": one.file.name, "version": one.file.version, "sha256": digest}
        row |= {"rows": 1, "size_bytes": 1, "landed_at": small_world.START}
        files.append({**row, "reason": "broken" if one.file.name == aside else None})
    by_hand.append(lake.table(tables.BATCH_LOG), [], Landed(lake.name, book.landing + 1, files=tuple(files)))
    by_hand.append(lake.table(tables.LANDED_FILES), files)


def put_away(lake: LocalLake, *known: inbox.File) -> None:
    """Once a run has read some files, and `known` their content."""
    same = {}
    for one in known:
        with lake.inbox().open(one.name) as stream:
            same[one.name, one.version] = inbox.sha256(stream)
    taken.settle(lake)
    taken.put_away(lake, lake.inbox().files(), taken.read_book(lake).files, same)


def put_away_after_a_listing(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken goes right after a folder was listed, whichever that is."""
    listed, book, look = lake.inbox().files(), taken.read_book(lake), LocalFolder.files

    def look_and_put_away(folder: LocalFolder) -> list[inbox.File]:
        found = look(folder)
        taken.put_away(lake, listed, book.files)
        return found

    monkeypatch.setattr(LocalFolder, "files", look_and_put_away)


def left_on_its_way(lake: LocalLake) -> Path:
    """Where a kill left the first landing's a.json, between the inbox and its archive."""
    folder = folder_of(lake).path
    way = folder.parent / "p.taken" / ".moving" / "000001" / "a.json"
    way.parent.mkdir(parents=True)
    (folder / "a.json").rename(way)
    return way


def lying(lake: LocalLake) -> dict[str, str]:
    """Every file of both folders with its content, whatever it is called."""
    root = folder_of(lake).path.parent
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}


def readable(lake: LocalLake) -> dict[tuple[int, str], str]:
    """Landing and file → the content that can be read of it, or why none can."""
    files, found = TakenFiles(lake), {}
    for row in lake.landed_files():
        place = row["landing"], row["file"]
        found[place] = files.absence(*place, row["version"], row["sha256"])
        if not found[place]:
            with files.of(row["landing"]).open(row["file"]) as stream:
                found[place] = stream.read().decode()
    return found


GONE = "it was changed since: other content is under its name"
DELETED = "it was deleted once it was taken"


@pytest.mark.parametrize(
    ("policy", "left", "read"),
    [
        ("keep", {"p/a.json": "two", "p/sub/b.json": "b", "p/bad.json": "?"}, (GONE, "two", "b")),
        (
            "archive",
            {
                "p/bad.json": "?",
                "p.taken/000001/a.json": "one",
                "p.taken/000002/a.json": "two",
                "p.taken/000001/sub/b.json": "b",
            },
            ("one", "two", "b"),
        ),
        ("delete", {"p/bad.json": "?"}, (DELETED, DELETED, DELETED)),
    ],
)
def test_what_becomes_of_taken_files(
    lake: LakeCatalog, tmp_path: Path, policy: str, left: dict[str, str], read: tuple[str, ...]
) -> None:
    pipeline = made(lake, tmp_path, policy)
    for name, content in (("a.json", "one"), ("sub/b.json", "b"), ("bad.json", "?")):
        put(pipeline, name, content)
    land(pipeline, aside="bad.json")
    put_away(pipeline)
    put(pipeline, "a.json", "two")
    land(pipeline)
    for _ in range(2):
        put_away(pipeline)
        assert lying(pipeline) == left
    found = readable(pipeline)
    assert (found[1, "a.json"], found[2, "a.json"], found[1, "sub/b.json"]) == read


def test_what_was_put_at_the_last_moment_stays_in_the_inbox(lake: LakeCatalog, tmp_path: Path) -> None:
    """It was listed as taken, and replaced before it was moved."""
    pipeline = made(lake, tmp_path, "archive")
    put(pipeline, "a.json", "one")
    land(pipeline)
    listed, book = pipeline.inbox().files(), taken.read_book(pipeline)
    put(pipeline, "a.json", "two")
    taken.put_away(pipeline, listed, book.files)
    assert lying(pipeline) == {"p/a.json": "two"}
    assert [one.file.name for one in taken.new_files(pipeline.inbox().files(), book.files)] == ["a.json"]


def test_the_same_content_put_again_is_put_away_with_the_first(lake: LakeCatalog, tmp_path: Path) -> None:
    pipeline = made(lake, tmp_path, "archive")
    put(pipeline, "a.json", "one")
    land(pipeline)
    put_away(pipeline)
    put(pipeline, "a.json", "two")
    assert readable(pipeline) == {(1, "a.json"): "one"}
    put(pipeline, "a.json", "one")
    (again,) = pipeline.inbox().files()
    put_away(pipeline)
    assert lying(pipeline) == {"p/a.json": "one", "p.taken/000001/a.json": "one"}
    put_away(pipeline, again)
    assert lying(pipeline) == {"p.taken/000001/a.json": "one"}


def digest_of(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def test_what_was_set_aside_in_between_makes_no_content_new(lake: LakeCatalog, tmp_path: Path) -> None:
    """A copy that was not finished: once it was, all of it was ingested again, and won over what corrected it since."""
    pipeline = made(lake, tmp_path, "archive")
    put(pipeline, "a.json", "one")
    land(pipeline)
    put_away(pipeline)
    for half in ("o", "on"):
        put(pipeline, "a.json", half)
        land(pipeline, aside="a.json")
        (lies,) = pipeline.inbox().files()
        put_away(pipeline, lies)
        assert lying(pipeline) == {"p/a.json": half, "p.taken/000001/a.json": "one"}
    for content in ("one", "on", "two"):
        put(pipeline, "a.json", content)
        (new,) = taken.new_files(pipeline.inbox().files(), taken.read_book(pipeline).files)
        assert new.known == (digest_of("on"), digest_of("one"))
    put(pipeline, "a.json", "one")
    (again,) = pipeline.inbox().files()
    put_away(pipeline, again)
    assert lying(pipeline) == {"p.taken/000001/a.json": "one"}


@pytest.mark.parametrize(
    ("contents", "said", "unproved"),
    [
        (("one", "-bad", "one"), [], True),
        (("one", "one"), ["a.json: landings 1 and 2"], False),
        (("-bad", "-bad"), ["a.json: landings 1 and 2"], False),
        (("one", "-bad", "two", "-bad", "one"), [], False),
    ],
)
def test_a_content_landed_again_without_another_one_in_between_is_told(
    lake: LakeCatalog, tmp_path: Path, contents: tuple[str, ...], said: list[str], unproved: bool
) -> None:
    """A violation; but version 0.2.0 took one again where another was set aside in between, and nothing mends that."""
    pipeline = made(lake, tmp_path, "keep")
    for content in contents:
        (folder_of(pipeline).path / "a.json").unlink(missing_ok=True)
        put(pipeline, "a.json", content)
        land(pipeline, aside="a.json" if content.startswith("-") else "")
    found = Findings("I4")
    origins.landed_files(world_of(pipeline, tmp_path), found)
    check = found.check()
    assert [one for one in check.offenders if "landings" in one] == said
    assert ("1 file landed again as before, over corrections made in between" in check.text) == unproved


def test_a_file_set_aside_is_proved_once_it_is_again_what_was_ingested(lake: LakeCatalog, tmp_path: Path) -> None:
    """It is landed no more, so no landing says so."""
    pipeline = made(lake, tmp_path, "keep")

    def set_aside() -> int:
        found = Findings("I4")
        origins.landed_files(world_of(pipeline, tmp_path), found)
        return int(found.check().numbers["files_set_aside"])

    put(pipeline, "never.json", "?")
    for content, counted in (("one", 1), ("bad", 2), ("one", 1)):
        put(pipeline, "a.json", content)
        if counted == 2 or not pipeline.landed_files():
            land(pipeline, aside="a.json" if content == "bad" else "never.json")
        assert set_aside() == counted
    for name in ("a.json", "never.json"):
        (folder_of(pipeline).path / name).unlink()
        assert set_aside() == 1


@pytest.mark.parametrize("policy", ["archive", "delete"])
def test_a_link_stays_where_it_is(lake: LakeCatalog, tmp_path: Path, policy: str) -> None:
    """In another folder a relative one would lead nowhere."""
    pipeline = made(lake, tmp_path, policy)
    (tmp_path / "of-others.json").write_text("one")
    put(pipeline, "b.json", "b")
    (folder_of(pipeline).path / "a.json").symlink_to(
        os.path.relpath(tmp_path / "of-others.json", folder_of(pipeline).path)
    )
    land(pipeline)
    put_away(pipeline)
    assert [one.name for one in pipeline.inbox().files()] == ["a.json"]
    assert readable(pipeline)[1, "a.json"] == "one"


@pytest.mark.parametrize(
    ("moving", "since", "left"),
    [
        ("one", "", {"p.taken/000001/a.json": "one"}),
        ("two", "", {"p/a.json": "two"}),
        ("two", "three", {"p/a.json": "three"}),
        ("one", "three", {"p.taken/000001/a.json": "one", "p/a.json": "three"}),
    ],
)
def test_killed_on_its_way_into_the_archive_a_file_is_where_it_belongs_after_the_next_run(
    lake: LakeCatalog, tmp_path: Path, moving: str, since: str, left: dict[str, str]
) -> None:
    """`moving` is what the kill left there: the taken content, or what replaced it; `since` what was put afterwards."""
    pipeline = made(lake, tmp_path, "archive")
    put(pipeline, "a.json", "one")
    land(pipeline)
    way = left_on_its_way(pipeline)
    if moving != "one":
        way.write_text(moving)
    if since:
        put(pipeline, "a.json", since)
    put_away(pipeline)
    assert lying(pipeline) == left
    assert not way.parent.exists()


def test_a_file_archived_while_both_folders_are_listed_is_found(
    lake: LakeCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = made(lake, tmp_path, "archive")
    put(pipeline, "a.json", "one")
    land(pipeline)
    put_away_after_a_listing(pipeline, monkeypatch)
    assert readable(pipeline) == {(1, "a.json"): "one"}
    assert list(lying(pipeline)) == ["p.taken/000001/a.json"]


@pytest.mark.parametrize("since", ["", "two"])
def test_a_file_on_its_way_into_the_archive_can_be_read(lake: LakeCatalog, tmp_path: Path, since: str) -> None:
    """For as long as it is compared with its hash, or until the run after a kill; also where its name is taken anew."""
    pipeline = made(lake, tmp_path, "archive")
    put(pipeline, "a.json", "one")
    land(pipeline)
    left_on_its_way(pipeline)
    if since:
        put(pipeline, "a.json", since)
    assert readable(pipeline) == {(1, "a.json"): "one"}


def land_rejected(lake: LocalLake) -> None:
    """Take all that is new; batch_log gets a row of each file, whose record is rejected."""
    land(lake)
    number = taken.read_book(lake).landing
    named = [file["file"] for file in lake.landed_files() if file["landing"] == number]
    rows = [{"landing": number, "file": name, "row": 1, **rejected(lake, name)} for name in named]
    by_hand.append(lake.table(tables.BATCH_LOG), rows, Landed(lake.name, number))


def rejected(lake: LocalLake, name: str) -> dict[str, object]:
    payload = (folder_of(lake).path / name).read_bytes().strip()
    return {"outcome": tables.REJECTED, "reason_kind": "malformed", "reason": "no", "payload": payload}


def world_of(lake: LocalLake, folder: Path) -> World:
    """As the proof sees it now."""
    names = (tables.BATCH_LOG, tables.STREAM_LOG, tables.LANDED_FILES)
    pins = {name: pinned(name, lake.table(name)) for name in names}
    world = World(lake, connect(folder), Sent(lake.name, None), pins)
    for name in names:
        world.register(name, pins[name])
    return world


@pytest.mark.parametrize(
    ("policy", "change", "said"),
    [
        ("keep", "nothing", ""),
        ("keep", "replaced", "a.json (landing 1): it was changed since: other content is under its name"),
        ("keep", "landed again", "a.json (landing 1): it was changed since: other content is under its name"),
        ("keep", "removed", "a.json (landing 1): it is not in the inbox any more"),
        ("keep", "put again as it was", ""),
        ("keep", "erased, and removed", ""),
        ("archive", "put away", ""),
        ("archive", "landed again", ""),
        ("delete", "put away", "a.json (landing 1): it was deleted once it was taken"),
    ],
)
def test_each_landing_whose_file_is_not_as_it_was_ingested_is_not_proved(
    lake: LakeCatalog, tmp_path: Path, policy: str, change: str, said: str
) -> None:
    """Only a number told it, and the line held."""
    pipeline = made(lake, tmp_path, policy)
    put(pipeline, "a.json", "{}")
    land_rejected(pipeline)
    path = folder_of(pipeline).path / "a.json"
    match change:
        case "replaced":
            path.write_text('{"a": 1}')
        case "landed again":
            put_away(pipeline)
            path.write_text('{"a": 1}')
            land_rejected(pipeline)
        case "removed":
            path.unlink()
        case "put again as it was":
            path.unlink()
            path.write_text("{}")
        case "erased, and removed":
            blank = {"landing": 1, "file": "a.json", "row": 1, "outcome": tables.ERASED}
            log = pipeline.table(tables.BATCH_LOG)
            log.delete()
            by_hand.append(log, [blank], Landed(pipeline.name, 1))
            path.unlink()
    put_away(pipeline)
    found = Findings("I4")
    origins.landed_files(world_of(pipeline, tmp_path), found)
    check = found.check()
    assert check.state == ("not proved" if said else "holds"), check
    assert check.numbers["files_changed_or_gone"] == int(bool(said))
    if said:
        assert said in check.text and "`files.taken: archive`" in check.text


@pytest.mark.parametrize("reading", [(recount, "records"), (file_records, "read")], ids=["counted", "compared"])
@pytest.mark.parametrize(
    ("policy", "change", "said"),
    [
        ("keep", "more", "it was changed since"),
        ("keep", "as many", "it was changed since"),
        ("keep", "broken", "it was changed since"),
        ("keep", "removed", "it is not in the inbox any more"),
        ("keep", "replaced in S3", "it was changed since"),
        ("delete", "put away", "it was deleted once it was taken"),
        ("archive", "put away", ""),
    ],
)
def test_a_file_that_goes_while_the_proof_reads_it_is_not_proved_and_no_violation(
    lake: LakeCatalog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reading: tuple[object, str],
    policy: str,
    change: str,
    said: str,
) -> None:
    """Once it was looked at: before its records are counted, or after that, before its values are compared."""
    pipeline = made(lake, tmp_path, policy)
    put(pipeline, "a.json", "{}")
    put(pipeline, "b.json", "{}")
    land_rejected(pipeline)
    path, read = folder_of(pipeline).path / "a.json", getattr(*reading)
    world = world_of(pipeline, tmp_path)

    def changed(folder: object, name: str, *arguments: object) -> object:
        match change:
            case "put away":
                put_away(pipeline)
            case "removed":
                path.unlink(missing_ok=True)
            case _:
                path.write_text({"more": '{"a": 1}\n{}', "as many": '{"a": 1}'}.get(change, "[{}"))
        if change == "replaced in S3" and name == "a.json":
            monkeypatch.setattr(LocalFolder, "open", lambda folder, name: Expired())
        try:
            found = read(folder, name, *arguments)
            return found if reading[1] == "records" else iter(list(found))
        finally:
            monkeypatch.setattr(LocalFolder, "open", opened)

    opened = LocalFolder.open
    monkeypatch.setattr(*reading, changed)
    found = Findings("I4")
    origins.landed_files(world, found)
    check = found.check()
    assert (check.ok, check.proved) == (True, not said), check
    assert said in check.text
    numbers = check.numbers
    gone = 2 if policy == "delete" else int(bool(said))
    assert (numbers["files_recounted"], numbers["files_changed_or_gone"]) == (2 - gone, gone)
    assert numbers["batch_log_records_compared"] == 2 - gone


@pytest.mark.parametrize(
    ("nulls", "said"),
    [
        ((), ""),
        (("landed_at",), ""),
        (("landing",), "may.json (landing 1): 1 landed, 0 logged, 0 different"),
        (("row",), "may.json (landing 1): 1 landed, 1 logged, 0 different"),
        (("file",), "may.json (landing 1): 1 landed, 0 logged, 0 different"),
        (("outcome",), "may.json:1 (landing 1): null, which is no outcome"),
        (("value",), "may.json:1 (landing 1): value None, sent 7"),
    ],
)
@pytest.mark.parametrize("compare_all", [False, True])
def test_nulls_in_the_log_are_told_and_end_no_proof(
    lake: LakeCatalog, tmp_path: Path, nulls: tuple[str, ...], said: str, compare_all: bool
) -> None:
    """No job writes them: they passed, or ended the proof with Python's own error."""
    pipeline = made(lake, tmp_path, "keep")
    event = small_world.event("a", 1, value=7)
    put(pipeline, "may.json", small_world.as_json(event).decode())
    land(pipeline)
    place = {"landing": 1, "file": "may.json", "row": 1, "landed_at": small_world.START + small_world.HOUR}
    row = {**event, **place, "outcome": tables.ACCEPTED} | dict.fromkeys(nulls)
    by_hand.append(pipeline.table(tables.BATCH_LOG), [row], Landed("p", 1))
    world = world_of(pipeline, tmp_path)
    world.compare_all = compare_all
    found = Findings("I4")
    origins.landed_files(world, found)
    origins.outcomes(world, found)
    check = found.check()
    assert check.ok == (not said)
    assert any(said in one for one in check.offenders) or not said, check


@pytest.mark.parametrize(
    ("row", "payload", "said"),
    [
        ("x,soon,", b'{"id": "x", "at": "soon", "kind": null}', ""),
        ("x,soon,", b'{"id": "y", "at": "soon", "kind": null}', "a.csv:1 (landing 1): payload differs"),
        ("x,soon,", b"x,soon,", "a.csv:1 (landing 1): payload differs"),
        ("x,soon", b"x,soon", ""),
        ("x,soon", b"x,soo", "a.csv:1 (landing 1): payload differs"),
        ("x,soon", None, "a.csv:1 (landing 1): payload differs"),
    ],
)
def test_a_rejected_row_of_csv_keeps_what_its_file_says(
    lake: LakeCatalog, tmp_path: Path, row: str, payload: bytes | None, said: str
) -> None:
    """Of CSV no payload was compared."""
    pipeline = made(lake, tmp_path, "keep")
    put(pipeline, "a.csv", f"id,at,kind\n{row}\n")
    land(pipeline)
    logged = {"landing": 1, "file": "a.csv", "row": 1, **rejected(pipeline, "a.csv"), "payload": payload}
    by_hand.append(pipeline.table(tables.BATCH_LOG), [logged], Landed("p", 1))
    found = Findings("I4")
    origins.landed_files(world_of(pipeline, tmp_path), found)
    offenders = found.check().offenders
    assert [one.startswith(said) for one in offenders] == ([True] if said else [])


class Expired(io.BytesIO):
    """What S3 serves of a file that is replaced while it is read: nothing."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise FileExpired("a.json", "etag")


def test_a_file_that_goes_before_it_is_replayed_is_named(lake: LakeCatalog, tmp_path: Path) -> None:
    work = made(lake, tmp_path, "keep")
    put(work, "a.json", "{}")
    land(work)
    (mended := tmp_path / "mended.jsonl").write_text("{}")
    plans = (replay.plan_landings(work, 1, None, "again"), replay.plan_mended("p", [mended], "again"))
    (folder_of(work).path / "a.json").unlink()
    mended.unlink()
    for plan, name in zip(plans, ("a.json", str(mended)), strict=True):
        with pytest.raises(TwofoldError, match=f"^{name} went away since the replay was planned") as refused:
            replay.carry_out(work, plan)
        assert "plan the replay again" in refused.value.remedy
