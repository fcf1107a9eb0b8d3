"""Judging in a process of its own: for records at which the process that judges them ends.

records ─► child: Judge ─► rows        the child was killed or crashed ─► each half apart ─► … ─► the one record
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import datetime

import pyarrow as pa

from twofold.contract import reasons
from twofold.contract.judge import Judge, Judged, Records, halves, moments, whole
from twofold.contract.records import CellRecords


class Crashed(Exception):
    """The process that judged a record ended without an answer."""


def judge_apart(judge: Judge, records: Records, received_at: datetime | pa.Array) -> Judged:
    """As `Judge.judge`; a record at which the child ends is rejected as not judged."""
    try:
        return Judged(_in_child(judge, records, received_at))
    except Crashed as error:
        if len(records) == 1:
            return judge.rejected(records, reasons.not_judged(error))
    return whole([judge_apart(judge, *half) for half in halves(records, moments(received_at, len(records)))])


def _in_child(judge: Judge, records: Records, received_at: datetime | pa.Array) -> pa.RecordBatch:
    if isinstance(records, CellRecords):
        # What makes payloads need not be picklable; rejected rows get theirs here.
        payloads = [records.payload(index) for index in range(len(records))]
        records = CellRecords(records.columns, list(records.numbers), payloads.__getitem__, dict(records.faults))
    asked = pickle.dumps((judge.pipeline, records, received_at))
    done = subprocess.run([sys.executable, "-m", __name__], input=asked, capture_output=True, check=False)
    if done.returncode:
        raise Crashed(f"the process that judged it ended with {done.returncode}")
    with pa.ipc.open_stream(done.stdout) as stream:
        return stream.read_next_batch()


def main() -> None:
    """The child: pickled pipeline, records and moments in, rows in Arrow's stream format out."""
    pipeline, records, received_at = pickle.load(sys.stdin.buffer)
    rows = Judge(pipeline).judge(records, received_at).rows
    with pa.ipc.new_stream(sys.stdout.buffer, rows.schema) as stream:
        stream.write_batch(rows)


if __name__ == "__main__":
    main()
