"""The inbox: which names are taken, what is listed, and how a file is put there whole."""

from __future__ import annotations

import os
import pickle
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import running
from twofold import inbox
from twofold.errors import StoreAway, UsageError
from twofold.inbox import BucketFolder, LocalFolder

OLD_S = 4 * 86_400


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    (tmp_path / "inbox").mkdir()
    return LocalFolder(tmp_path / "inbox")


def silent(copied: int) -> None:
    """No progress is shown."""


@pytest.mark.parametrize(
    "name",
    [
        "a:b.json", "C:\\data\\jan.csv", "2013/jan 1.csv", "Καλημέρα.csv", "日本.jsonl", "می\u200cخواهم.csv",
        "\u202f\xa0.csv", "👩\u200d🚀.parquet", "#1?x=%20&y.csv", "'\"`$(rm).json", "q\u0308.csv",
    ],
)  # fmt: skip
def test_a_name_in_any_script_goes_in_and_comes_out(folder: LocalFolder, tmp_path: Path, name: str) -> None:
    (tmp_path / "source").write_bytes(b"x\n")
    folder.put(tmp_path / "source", inbox.checked_name(name), silent)
    (listed,) = folder.files()
    assert listed.name == name
    assert folder.version(name) == listed.version
    with folder.open(name) as stream:
        assert stream.read() == b"x\n"
    assert inbox.name_fault(name) == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\nb.csv", "control"), ("a\x1b[2J.csv", "control"), ("a\x85.csv", "control"), ("a\0.csv", "control"),
        ("a\u2028b.csv", "line break"), ("a\udcff.csv", "not UTF-8"),
        ("../a.csv", "leaves"), ("/a.csv", "leaves"), ("a//b.csv", "leaves"), ("a/./b.csv", "leaves"),
        ("a.csv/", "leaves"), (".a.csv", "hidden"), ("x/_b/a.csv", "hidden"),
        ("a.txt", "ending"), ("a.parquet.gz", "ending"),
    ],
)  # fmt: skip
def test_names_that_are_refused_say_why(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        inbox.checked_name(name)


def test_a_name_as_long_as_the_disk_takes_can_be_put(folder: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    for name in ("日" * 83 + "a.json", "x" * 250 + ".json"):
        assert len(name.encode()) == 255
        folder.put(tmp_path / "source", name, silent)
        assert [path.name for path in folder.path.iterdir()] == [name]
        (folder.path / name).unlink()


def test_leftovers_are_only_what_put_itself_leaves(folder: LocalFolder, tmp_path: Path) -> None:
    ours = [".jan.csv.0123abcd.part", "sub/.日.json.ffffffff.part"]
    others = [
        ".jan.csv.part", ".jan.csv.0123abc.part", ".jan.csv.0123ABCD.part", "jan.csv.0123abcd.part", ".0123abcd.part",
        ".jan.csv.0123abcd.part.csv", "data.part", ".jan.csv.Xk3a9Q", "jan.csv", ".nfs000.part",
    ]  # fmt: skip
    (folder.path / "sub").mkdir()
    for name in [*ours, *others, ".young.csv.0123abcd.part"]:
        (folder.path / name).write_bytes(b"x")
        if not name.startswith(".young"):
            os.utime(folder.path / name, (time.time() - OLD_S,) * 2)
    (folder.path / ".folder.0123abcd.part").mkdir()
    found = folder.leftovers(datetime.now(UTC) - timedelta(days=3))
    assert [path.relative_to(folder.path).as_posix() for path in found] == ours


def test_what_a_killed_put_leaves_is_a_leftover(folder: LocalFolder, tmp_path: Path) -> None:
    """Whatever the name: the copy as it is while bytes are written."""
    (tmp_path / "source").write_bytes(b"x")
    seen = []

    def killed(copied: int) -> None:
        (part,) = folder.path.iterdir()
        os.utime(part, (time.time() - OLD_S,) * 2)
        seen.append(folder.leftovers(datetime.now(UTC) - timedelta(days=3)) == [part])

    for name in ("a.csv", "日" * 83 + "a.json", "a:b c.json"):
        folder.put(tmp_path / "source", name, killed)
        (folder.path / name).unlink()
    assert seen == [True] * 3


@pytest.mark.parametrize("store", ["local", "minio"])
def test_folders_go_to_the_tasks_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    # The store's client asks again for ten seconds otherwise.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    settings = running.fresh_settings(tmp_path, tmp_path, store=store, s3_secret_key="s3cret")
    assert pickle.loads(pickle.dumps(settings)) == settings
    here = inbox.folder(settings, "p")
    there = pickle.loads(pickle.dumps(here))
    if store == "local":
        assert there == here
        Path(tmp_path / "bucket/landing/p").mkdir(parents=True)
        Path(tmp_path / "bucket/landing/p/a.csv").write_bytes(b"id\n")
        assert there.files() == here.files() != []
        assert inbox.folder(pickle.loads(pickle.dumps(settings)), "p") == here
    else:
        assert isinstance(there, BucketFolder)
        # Nothing listens there: it is asked, with the settings of the folder that was pickled.
        with pytest.raises(StoreAway, match=settings.s3_endpoint):
            there.files()


# ---- places ----


def test_the_roots_meet_under_no_name(tmp_path: Path) -> None:
    """Whatever pipelines, tables and queries are called, no folder of one kind lies in one of another."""
    settings = running.fresh_settings(tmp_path, tmp_path)
    names = ["tables", "landing", "checkpoints", "events", "stream_log", "data", "metadata"]
    made = [f"{settings.tables}/{pipeline}/{table}" for pipeline in names for table in names]
    put = [settings.inbox(pipeline) for pipeline in names]
    kept = [settings.checkpoint(pipeline, query) for pipeline in names for query in names]
    for one, other in ((made, put), (put, kept), (kept, made)):
        assert not [(a, b) for a in one for b in other if f"{a}/".startswith(f"{b}/") or f"{b}/".startswith(f"{a}/")]


NAMED = str(uuid.UUID(int=0x1234))


@pytest.mark.parametrize(
    "name",
    [
        f"data/00000-0-{NAMED}.parquet", f"data/at_day=2026-03-01/00013-7-{NAMED}-0-00001.parquet",
        f"data/a=1/b=x y/00000-12345-{NAMED}-00001-deletes.parquet",
        f"metadata/00000-{NAMED}.metadata.json", f"metadata/123456-{NAMED}.gz.metadata.json",
        f"metadata/snap-8123-1-{NAMED}.avro", f"metadata/{NAMED}-m12.avro", f"metadata/optimized-m-{NAMED}.avro",
    ],
)  # fmt: skip
def test_files_of_tables_are_known_by_name(name: str) -> None:
    assert inbox.is_table_file(name)


@pytest.mark.parametrize(
    "name",
    [
        "old.jsonl", "data/old.jsonl", "data/march.parquet", f"data/{NAMED}.parquet", f"data/00000-0-{NAMED}.csv",
        f"00000-0-{NAMED}.parquet", f"data/2026/00000-0-{NAMED}.parquet", f"x/data/00000-0-{NAMED}.parquet",
        f"metadata/00000-0-{NAMED}.parquet", f"data/{NAMED}-m12.avro", "metadata/export.avro",
        "metadata/table.metadata.json", f"metadata/x/{NAMED}-m12.avro",
        f"data/00000-0-{NAMED}.parquet\n", "data/offsets/0", "metadata/state/0/1/3.zip",
        "metadata/metadata", f"data/00000-0-{NAMED.replace('4', 'X')}.parquet",
    ],
)  # fmt: skip
def test_other_files_are_nobodys_but_the_users(name: str) -> None:
    assert not inbox.is_table_file(name)
