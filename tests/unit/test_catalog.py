"""The catalog's tables, where what they are read from is away."""

from __future__ import annotations

import socket

import pytest
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from sqlalchemy.orm import Session

from twofold import catalog
from twofold.errors import NotRunning


def test_a_store_that_does_not_answer_is_named_and_no_stack_trace() -> None:
    endpoint = f"http://127.0.0.1:{_free_port()}"
    keys = {"s3.access-key-id": "k", "s3.secret-access-key": "s", "s3.region": "us-east-1"}
    away = SqlCatalog("c", uri="sqlite://", warehouse="s3a://b", **{"s3.endpoint": endpoint}, **keys)
    with Session(away.engine) as session:
        place = "s3a://b/p/t/metadata/0.metadata.json"
        row = {"catalog_name": "c", "table_namespace": "p", "table_name": "t", "metadata_location": place}
        session.add(IcebergTables(**row, previous_metadata_location=None))
        session.commit()
    with pytest.raises(NotRunning, match=f"the S3 store does not answer at {endpoint}"):
        catalog.find(away, "p", "t")
    assert catalog.find(away, "p", "other") is None


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
    return port
