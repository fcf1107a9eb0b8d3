"""What maintenance removes: old files of the kinds that writers of tables leave, in the table's own folders alone."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from spark_jobs import maintenance
from twofold.catalog import LakeCatalog
from twofold.errors import TwofoldError
from twofold.retention import upkeep

ROWS = pa.table({"id": ["a", "b"]})


@pytest.fixture
def lake(tmp_path: Path) -> Catalog:
    """A catalog in memory over a folder, with a namespace."""
    catalog = LakeCatalog("c", uri="sqlite://", warehouse=f"file://{tmp_path}/tables")
    catalog.create_namespace("landing")
    return catalog


@pytest.fixture
def table(lake: Catalog) -> Table:
    """`landing.events`, with two commits."""
    table = lake.create_table(("landing", "events"), ROWS.schema)
    for _ in range(2):
        table.append(ROWS)
    return table


def grown_old(folder: Path) -> set[Path]:
    files = {path for path in folder.rglob("*") if path.is_file()}
    for path in files:
        os.utime(path, (time.time() - 4 * 86_400,) * 2)
    return files


def remove(lake: Catalog, dry_run: bool = False) -> int:
    return maintenance.remove_orphans(lake, "landing", "events", upkeep(dry_run=dry_run), datetime.now(UTC))


def placed(folder: Path, *names: str) -> set[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return {folder / name for name in names}


def test_files_of_users_in_a_tables_folder_stay(lake: Catalog, table: Table, tmp_path: Path) -> None:
    folder = tmp_path / "tables" / "landing" / "events"
    placed(
        folder,
        "old.jsonl", "data/march.parquet", "data/2026/x.csv", "metadata/notes.json", "metadata/export.avro",
        f"00000-0-{uuid.uuid4()}.parquet", f"sub/data/00000-0-{uuid.uuid4()}.parquet", ".hidden",
    )  # fmt: skip
    before = grown_old(folder)
    assert remove(lake) == 0
    assert {path for path in before if not path.exists()} == set()
    assert lake.load_table(table.name()).scan().count() == 4


def test_a_tables_own_orphans_go_with_their_checksums(lake: Catalog, table: Table, tmp_path: Path) -> None:
    folder = tmp_path / "tables" / "landing" / "events"
    one, two = f"00000-3-{uuid.uuid4()}-0-00001.parquet", f"{uuid.uuid4()}-m0.avro"
    left = placed(folder, f"data/{one}", f"metadata/{two}", f"metadata/00009-{uuid.uuid4()}.metadata.json")
    checksums = placed(folder, f"data/.{one}.crc", f"metadata/.{two}.crc")
    before = grown_old(folder)
    young = placed(folder, f"data/00000-4-{uuid.uuid4()}.parquet")
    assert remove(lake, dry_run=True) == 3
    assert all(path.exists() for path in left)
    assert remove(lake) == 3
    assert {path for path in before | young if not path.exists()} == left | checksums
    assert remove(lake) == 0
    assert lake.load_table(table.name()).scan().count() == 4


def test_where_a_manifest_is_missing_nothing_is_removed(lake: Catalog, table: Table, tmp_path: Path) -> None:
    """Its data files look like orphans, and are what a repair would need."""
    folder = tmp_path / "tables" / "landing" / "events"
    snapshot = table.current_snapshot()
    assert snapshot
    gone = Path(snapshot.manifests(table.io)[0].manifest_path.removeprefix("file://"))
    gone.unlink()
    before = grown_old(folder)
    with pytest.raises(TwofoldError, match=rf"landing\.events: .*{gone.name} is missing"):
        remove(lake)
    assert all(path.exists() for path in before)
