"""What readers hand to the contract: some records, each with its number, in one of two forms.

Kafka values, JSON lines, elements of a JSON array ─► JsonRecords   (the bytes of one object each)
rows of CSV or Parquet ────────────────────────────► CellRecords   (a column of cells per declared field)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from twofold.contract.reasons import Fault


@dataclass(frozen=True)
class JsonRecords:
    """Records that are JSON texts; `numbers[i]` is the number of `values[i]` within its file, from 1."""

    values: Sequence[bytes | None]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.values)

    def payload(self, index: int) -> bytes | None:
        """The record as it came."""
        return self.values[index]


@dataclass(frozen=True)
class CellRecords:
    """Records that are rows of cells.

    `columns` has the declared fields that the file has, as Arrow arrays of equal length: CSV cells as binary arrays of
    the cells' own bytes in UTF-8 (null: an empty cell; `""` in the file: empty text), Parquet columns in the types that
    the file has.
    """

    columns: Mapping[str, pa.Array]
    numbers: Sequence[int]
    payload: Callable[[int], bytes]
    """The bytes to keep of a rejected row: a CSV row that is malformed as it was, any other row as a JSON object of
    all cells."""
    faults: Mapping[int, Fault] = field(default_factory=dict)
    """Index of a row → what is wrong with its form; its cells are null then."""

    def __len__(self) -> int:
        return len(self.numbers)
