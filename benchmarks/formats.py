"""What the contract costs in each format: the same 20 values of a record, flat, nested, behind a schema id, in Avro.

    values ─► the producer's writer ─► a batch as Spark hands it over ─► contract ─► CPU-seconds

No service takes part: a schema is what its writer says. A JSON document has 2 KB, most of it not declared.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.measure import BenchFailure, Figure
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


NESTED_FLOOR, CONFLUENT_FLOOR, AVRO_FLOOR = 0.5, 0.95, 60
"""To flat JSON in MB; to JSON; in thousand records per CPU-second."""
_ASKED = {
    "flat": ("json", False, 20),
    "flat, confluent-json": ("confluent-json", False, 20),
    "nested": ("json", True, 20),
    "nested, avro": (AVRO, True, 20),
    "flat, avro, 10 fields": (AVRO, False, 10),
}


def measure() -> Iterator[Figure]:
    """CPU-seconds of a batch in each format, and how they compare."""
    cpu_s, megabytes = {}, {}
    with tempfile.TemporaryDirectory(prefix="twofold-bench-") as folder:
        for name, how in _ASKED.items():
            cpu_s[name], size = _cost(Path(folder) / "p.yaml", *how)
            megabytes[name] = size / cpu_s[name] / 1e6
            note = f"{megabytes[name]:.0f} MB/CPU-s"
            yield Figure(name, cpu_s=cpu_s[name], events_per_cpu_s=RECORDS / cpu_s[name], note=note)
    for what, ratio, floor in (
        ("nested JSON to flat, MB/CPU-s", megabytes["nested"] / megabytes["flat"], NESTED_FLOOR),
        ("confluent-json to JSON", cpu_s["flat"] / cpu_s["flat, confluent-json"], CONFLUENT_FLOOR),
        ("Avro, 10 fields, thousand records/CPU-s", RECORDS / cpu_s["flat, avro, 10 fields"] / 1000, AVRO_FLOOR),
    ):
        yield Figure(what, ratio=ratio, bound=f">= {floor}")


def _cost(path: Path, form: str, nested: bool, count: int) -> tuple[float, int]:
    """CPU-seconds of the fastest round, and the bytes of all values without a schema's id before them."""
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
    return min(taken), sum(map(len, values)) - len(write.prefix) * RECORDS


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
