"""What the contract costs in each format: the same 20 values of a record, flat, nested, behind a schema id, in Avro.

    values ─► the producer's writer ─► a batch as Spark hands it over ─► contract ─► CPU-seconds

No service takes part: a schema is what its writer says. A JSON document has 2 KB, most of it not declared.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.failures import BenchFailure
from producer.wire import writer
from twofold.contract import kafka_records
from twofold.contract.judge import Judge
from twofold.definition.load import load_file
from twofold.definition.model import AVRO
from twofold.schema_registry import Registered

RECORDS = 10_000
"""In a batch, as Spark hands them over."""
_ROUNDS = 7
_DOCUMENT_BYTES = 2048
_KINDS = ("string", "long", "double", "boolean", '"decimal(12,2)"')
_PARENTS = ("", "payload.", "payload.user.", "payload.order.", "payload.order.address.")


@dataclass(frozen=True)
class Cost:
    """What a batch took."""

    cpu_s: float
    value_bytes: int
    """Of all values, without a schema's id before them."""

    @property
    def records_per_cpu_s(self) -> float:
        """Of one core."""
        return RECORDS / self.cpu_s

    @property
    def mb_per_cpu_s(self) -> float:
        """Of one core."""
        return self.value_bytes / self.cpu_s / 1e6


def measure() -> dict[str, Cost]:
    """Name → cost: `flat`, `nested`, `flat, confluent-json`, `nested, avro`, and `flat, avro` of half the fields."""
    asked = {
        "flat": ("json", False, 20),
        "flat, confluent-json": ("confluent-json", False, 20),
        "nested": ("json", True, 20),
        "nested, avro": (AVRO, True, 20),
        "flat, avro, 10 fields": (AVRO, False, 10),
    }
    with tempfile.TemporaryDirectory(prefix="twofold-bench-") as folder:
        return {name: _cost(Path(folder) / "p.yaml", *how) for name, how in asked.items()}


def _cost(path: Path, form: str, nested: bool, count: int) -> Cost:
    fields = {"at": f"{{type: timestamp, required: true{', from: meta.at' if nested else ''}}}"}
    for number in range(count - 1):
        place = f", from: {_PARENTS[number % 5]}f{number}" if nested else ""
        fields[f"f{number}"] = f"{{type: {_KINDS[number % 5]}{place}}}"
    listed = "".join(f"    {name}: {kind}\n" for name, kind in fields.items())
    path.write_text(
        f"name: p\ntopic: {{name: p, format: {form}}}\nlateness: 1 minute\n"
        f"event:\n  id: none\n  time: at\n  fields:\n{listed}"
    )
    registered: list[Registered] = []

    def register(_subject: str, kind: str, text: str) -> int:
        registered.append(Registered(kind, text))
        return 1

    write = writer(load_file(path), register)
    values = [write.write(_values(number, count)) for number in range(RECORDS)]
    if form != AVRO:
        values = [_padded(value, len(write.prefix)) for value in values]
    batch = pa.RecordBatch.from_pydict({"value": pa.array(values, pa.binary())})
    judge, now = Judge(write.pipeline), datetime.now(UTC)
    taken = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        judged = judge.judge(kafka_records.of(write.pipeline, batch, lambda _: registered[0]), now)
        taken.append(time.process_time() - began)
        if judged.counts() != {"accepted": RECORDS}:
            raise BenchFailure(f"{form}: {judged.counts()}")
    return Cost(min(taken), sum(map(len, values)) - len(write.prefix) * RECORDS)


def _values(number: int, count: int) -> dict[str, Any]:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number)
    made = (f"text {number}", number, number / 7, number % 2 == 0, Decimal(number) / 100)
    return {"at": moment, **{f"f{place}": made[place % 5] for place in range(count - 1)}}


def _padded(value: bytes, skipped: int) -> bytes:
    """With keys that are not declared, as events of others have them."""
    more: dict[str, str] = {}
    room = _DOCUMENT_BYTES - len(value) + skipped
    while room > 0:
        more[f"other_{len(more)}"] = "x" * min(room, 60)
        room -= 80
    return value[:-1] + b"," + json.dumps(more).encode()[1:]
