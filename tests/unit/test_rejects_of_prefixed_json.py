"""Rejected records of a topic in confluent-json are written as the producer and the inbox take them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import duckdb
import pytest

from twofold.definition.load import load_file
from twofold.reader.rejects import Rejects
from twofold.reader.session import Reader

PAYMENTS = Path(__file__).parents[1] / "pipelines" / "payments.yaml"
# The id 10 is a line break.
STREAM = [b'\0\0\0\0\n{"payment_id":0}', b"no prefix", b"\0\0\0\0\n"]


class Logs:
    """A reader of two logs that are tables of DuckDB."""

    def __init__(self) -> None:
        self.engine = duckdb.connect()
        for table, place in (
            ("stream_log", "kafka_partition INT, kafka_offset BIGINT, kafka_timestamp TIMESTAMPTZ"),
            ("batch_log", 'file TEXT, "row" BIGINT'),
        ):
            columns = "outcome TEXT, reason_kind TEXT, reason TEXT, payload BLOB, landing BIGINT, landed_at TIMESTAMPTZ"
            self.engine.execute(f"CREATE TABLE {table} ({columns}, {place})")
        for offset, payload in enumerate(STREAM):
            values = f"'rejected', 'k', 'r', ?, 1, now(), 0, {offset}, now()"
            self.engine.execute(f"INSERT INTO stream_log VALUES ({values})", [payload])
        self.engine.execute(
            "INSERT INTO batch_log VALUES ('rejected', 'k', 'r', ?, 1, now(), 'f', 1)", [b"\0in a file"]
        )

    def query(self, sql: str, _pipeline: str) -> Any:  # noqa: ANN401
        return self.engine.sql(sql)


@pytest.mark.parametrize(
    ("form", "lines", "apart"),
    [
        ("confluent-json", [b'{"payment_id":0}', b"no prefix"], [STREAM[2], b"\0in a file"]),
        ("json", [b"no prefix"], [STREAM[0], STREAM[2], b"\0in a file"]),
    ],
)
def test_the_schema_id_is_left_out(tmp_path: Path, form: str, lines: list[bytes], apart: list[bytes]) -> None:
    payments = load_file(PAYMENTS)
    pipeline = replace(payments, topic=replace(payments.topic, format=form))
    to = io.BytesIO()
    Rejects(cast("Reader", Logs()), pipeline).write(to, tmp_path / "apart")
    assert to.getvalue().splitlines() == lines
    assert [path.read_bytes() for path in sorted((tmp_path / "apart").iterdir())] == apart
