"""A view's table in the speed layer, changed by others while its versions are folded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pyarrow as pa
import pytest
from pyiceberg.table import Table

from tests.small_world import START
from twofold import commits, schemas, tables
from twofold.catalog import LakeCatalog
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.settings import Settings
from twofold.table_files import Place, Writer
from twofold.versions import StreamView


@pytest.mark.parametrize("gone", ["data", "manifests"])
def test_versions_that_others_expire_while_they_are_folded_are_left_alone(
    lake: LakeCatalog, define: Callable[..., Pipeline], tmp_path: Path, gone: str
) -> None:
    """As by `twofold maintain --snapshot-retention 0`: the job's own fold ended with DuckDB's or pyiceberg's error."""
    pipeline = define()
    (view,) = pipeline.views.values()
    name = tables.stream_view_name(view)
    lake.create_namespace_if_not_exists(pipeline.name)
    schemas.ensure_view(lake, pipeline, view, name)

    def load(name: str) -> Table:
        return lake.load_table((pipeline.name, name))

    parts = SimpleNamespace(table=load, settings=Settings(home=tmp_path))
    for version in (1, 2, 3):
        writer = Writer(Place.of(load(name)))
        row = {"window_start": START, "window_end": START, "kind": "a", "events": version, tables.VERSION: version}
        writer.write(pa.RecordBatch.from_pylist([row], schema=Place.of(load(name)).arrow))
        commits.append(load(name), writer.close(), {})
    late, first = (StreamView(cast(Lake, parts), view) for _ in range(2))
    before = [task.file for task in late.table.scan().plan_files()]
    assert first.fold(2)
    expired = [one.snapshot_id for one in load(name).metadata.snapshots[:-1]]
    if gone == "manifests":
        commits.tidy(load(name), expired)
    else:
        load(name).maintenance.expire_snapshots().by_ids(expired).commit()
        commits.discard(load(name), before)
    there = set(tmp_path.rglob("*.parquet"))
    assert late.fold(2) is None
    assert set(tmp_path.rglob("*.parquet")) == there
    assert late.table.scan().to_arrow()["events"].to_pylist() == [3]
    assert late.fold(2) == (0, 0, 0)


def test_a_file_that_is_lost_is_no_commit_of_others(
    lake: LakeCatalog, define: Callable[..., Pipeline], tmp_path: Path
) -> None:
    pipeline = define()
    schemas.ensure_tables(lake, pipeline)
    log = lake.load_table((pipeline.name, tables.STREAM_LOG))
    with pytest.raises(FileNotFoundError), commits.kept(log):
        raise FileNotFoundError(tmp_path)
