"""What a line of the proof says, where it is not the usual one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlparse

from tests import lake as by_hand
from tests.conftest import write_definition
from tests.lake import LocalLake
from twofold import schemas, tables
from twofold.catalog import LakeCatalog
from twofold.proof import files_there
from twofold.settings import Settings
from twofold.table_state import Landed


def test_a_line_of_missing_files_ends_with_what_is_wrong(lake: LakeCatalog, tmp_path: Path) -> None:
    """It ended with "; ", and nothing after it."""
    pipeline = write_definition(tmp_path, name="p", views=None)
    log = schemas.ensure_tables(lake, pipeline)[tables.STREAM_LOG]
    by_hand.append(log, [{"outcome": tables.REJECTED}], Landed("p", 1))
    made, now = LocalLake(Settings(home=tmp_path), pipeline, lake), datetime.now(UTC)
    whole = files_there.all_there(made, now)
    assert (whole.ok, whole.text.endswith(" of 4 tables exist")) == (True, True), whole
    (task,) = log.scan().plan_files()
    Path(urlparse(task.file.file_path).path).unlink()
    found = files_there.all_there(made, now)
    assert (found.ok, found.text) == (False, "1 file of stream_log missing")
