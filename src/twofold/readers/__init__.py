"""Readers: the bytes of one file become the contract's records, in pieces of bounded size, without Spark.

    bytes ─► texts: gzip, byte order mark, UTF-16 ─┬► csv_rows ──────► CellRecords
                                                   └► json_texts ────► JsonRecords
    bytes ─► parquet_rows ────────────────────────────────────────────► CellRecords

    for records in files.read(stream, "2013/jan.csv.gz", pipeline): ...

What a cell or a text means is the contract's business; here is only where each record begins and ends.
"""

from __future__ import annotations

RECORDS_A_PIECE = 65_536
PIECE_BYTES = 16 << 20
"""About how many bytes of a file a piece holds, unless one record is larger."""
BLOCK_BYTES = 2 << 20
"""How much is read at a time: small enough that what is worked out about it stays in the processor's caches."""
MAX_RECORD_BYTES = 64 << 20
"""A longer record is no record; the contract refuses far smaller ones, each for itself."""


class SetAside(Exception):
    """The file cannot be read as what its name declares; the message is one sentence that says what to do.

    It may come in the middle of a file: what was read of it before is to be discarded.
    """
