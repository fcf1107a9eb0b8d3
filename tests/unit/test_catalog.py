"""The catalog's tables, where what they are read from is away."""

from __future__ import annotations

from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from pyiceberg.catalog.sql import IcebergTables
from sqlalchemy.orm import Session

from tests import running
from tests.conftest import write_definition
from twofold import catalog, commits, schemas, tables
from twofold.errors import Busy, NotRunning
from twofold.settings import Settings


class Starting(BaseHTTPRequestHandler):
    """A store that is not ready yet."""

    def do_HEAD(self) -> None:
        self.send_response(503)
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.mark.parametrize("starts", [False, True])
def test_a_store_that_does_not_answer_is_named_and_no_stack_trace(tmp_path: Path, starts: bool) -> None:
    settings = running.fresh_settings(tmp_path, tmp_path, store="minio", s3_secret_key="s")
    with ExitStack() as at_end:
        if starts:
            server = ThreadingHTTPServer(("127.0.0.1", settings.minio_port), Starting)
            at_end.callback(server.server_close)
            at_end.callback(server.shutdown)
            Thread(target=server.serve_forever).start()
        is_named(settings)


def is_named(settings: Settings) -> None:
    away = catalog.LakeCatalog("c", uri="sqlite://", warehouse=settings.warehouse, **catalog.file_io(settings))
    with Session(away.engine) as session:
        place = "s3a://b/p/t/metadata/0.metadata.json"
        row = {"catalog_name": "c", "table_namespace": "p", "table_name": "t", "metadata_location": place}
        session.add(IcebergTables(**row, previous_metadata_location=None))
        session.commit()
    with pytest.raises(NotRunning, match=f"the S3 store does not answer at {settings.s3_endpoint}"):
        catalog.find(away, "p", "t")
    assert catalog.find(away, "p", "other") is None


def test_no_commit_follows_a_lost_lock(tmp_path: Path) -> None:
    own = catalog.LakeCatalog("c", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}")
    log = schemas.ensure_tables(own, write_definition(tmp_path))[tables.BATCH_LOG]

    def lost() -> None:
        raise Busy("the lock was lost", "")

    with own.guarded(lambda: None):
        log = commits.append(log, (), {})
        with own.guarded(lost), pytest.raises(Busy):
            commits.append(log, (), {})
        log = commits.append(log, (), {})
    assert len(log.metadata.snapshots) == 2
    own.engine.dispose()
