"""Records as they go into the contract: JSON texts, elements of JSON texts, or rows of cells.

Kafka values, JSON lines, elements of a file's array ─► JsonRecords ─(event.each)─► ElementRecords
rows of CSV or Parquet, Kafka values in Avro ─────────► CellRecords
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from twofold.contract import reasons
from twofold.contract.literals import is_text
from twofold.contract.reasons import Reason
from twofold.contract.reference import Readings


@dataclass(frozen=True)
class JsonRecords:
    """Records that are JSON texts; `numbers[i]` is the number of `values[i]` within its file, from 1."""

    values: Sequence[bytes | None]
    numbers: Sequence[int]
    beside: Mapping[str, pa.Array] = field(default_factory=dict)
    """Field → what it holds of each record, where that is not found in the text: Kafka's key, headers, the arrival."""
    faults: Mapping[int, Reason] = field(default_factory=dict)
    """Index of a record → why there is no text to judge; its value says nothing then."""
    originals: pa.Array | None = None
    """The records as they came, where a text is only a part of its record."""
    measured: bool = False
    """Their sizes were held against `max_bytes` before they became texts, which may be larger."""

    def __len__(self) -> int:
        return len(self.values)

    def payload(self, index: int) -> bytes | None:
        """The record as it came."""
        if self.originals is None:
            return self.values[index]
        whole: bytes | None = self.originals[index].as_py()
        return whole


@dataclass
class Around:
    """What is known of the records around elements: found once for all of their elements, in whatever parts."""

    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    """Field → its value in each record, unless it lies in the elements."""
    sizes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Bytes of the texts of all columns, by record."""
    unclear: Set[int] = frozenset()
    """Indexes of records of which the columns say nothing."""
    readings: dict[int, Readings | Reason] = field(default_factory=dict)
    """Index of a record → what the reference reads there, as far as it was asked."""


@dataclass(frozen=True)
class ElementRecords:
    """Elements of the arrays of JSON texts, each an event; and a row for each text that has no element.

    All sequences are parallel: an entry is an element, or stands for a whole text.
    """

    values: Sequence[bytes | None]
    """The elements' texts; null of a row that stands for a whole text."""
    numbers: Sequence[int]
    """The places of the elements in their arrays, from 1; 0 of a row that stands for a whole text."""
    parents: Sequence[int]
    """The index of the record that each comes from."""
    records: JsonRecords
    faults: Mapping[int, Reason] = field(default_factory=dict)
    """Index of a row that stands for a text → what is wrong with that; of other such rows the array is empty."""
    around: Around = field(default_factory=Around)

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of the record around each: what a rejected row keeps."""
        return np.array([len(value or b"") for value in self.records.values], np.int64)[self.parents]

    def payload(self, index: int) -> bytes | None:
        """The whole record as it came."""
        return self.records.payload(self.parents[index])


@dataclass(frozen=True)
class CellRecords:
    """Records that are rows of cells.

    `columns` has the fields that the file has, as Arrow arrays of equal length: CSV cells as binary arrays of the
    cells' own bytes in UTF-8 (null: an empty cell; `""` in the file: empty text), others in the file's own types.
    """

    columns: Mapping[str, pa.Array]
    numbers: Sequence[int]
    payload: Callable[[int], bytes | None]
    """The bytes to keep of a rejected row: a value of Kafka or a malformed CSV row as it was, any other row as a JSON
    object of all cells."""
    faults: Mapping[int, Reason] = field(default_factory=dict)
    """Index of a row → what is wrong with its form, or that it is larger than `max_bytes`; its cells say nothing
    then."""

    def __len__(self) -> int:
        return len(self.numbers)


Records = JsonRecords | ElementRecords | CellRecords


def too_large(columns: Iterable[pa.Array], most: int) -> dict[int, Reason]:
    """Rows of a file whose texts have more than `most` bytes, by their index; `columns` are the file's."""
    sizes = np.sum([*map(text_bytes, columns)], axis=0)
    return {int(row): reasons.too_large(int(sizes[row]), most) for row in np.flatnonzero(sizes > most)}


def text_bytes(array: pa.Array) -> NDArray[np.int64]:
    """How many bytes the texts of each value have, those that lie within it too; bytes count as texts."""
    kind = array.type
    if is_text(kind):
        return np.asarray(pc.fill_null(pc.binary_length(array), 0), np.int64)
    if pa.types.is_map(kind):
        entries = pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])
        array = pa.ListArray.from_arrays(array.offsets, entries)
    sizes = np.zeros(len(array), np.int64)
    if pa.types.is_struct(kind):
        return sum(map(text_bytes, array.flatten()), sizes)
    if pa.types.is_nested(kind):
        np.add.at(sizes, pc.list_parent_indices(array).to_numpy(), text_bytes(pc.list_flatten(array)))
    return sizes


def part(records: Records, at: int, count: int) -> Records:
    """Some consecutive records of these."""
    end = at + count
    faults = {index - at: fault for index, fault in records.faults.items() if at <= index < end}
    some: dict[str, Any] = {"numbers": records.numbers[at:end], "faults": faults}
    if isinstance(records, CellRecords):
        columns = {name: array.slice(at, count) for name, array in records.columns.items()}
        return replace(records, **some, columns=columns, payload=lambda index: records.payload(at + index))
    some["values"] = records.values[at:end]
    if isinstance(records, ElementRecords):
        # The records around them stay whole: the parents' indexes are theirs.
        return replace(records, **some, parents=records.parents[at:end])
    beside = {name: array.slice(at, count) for name, array in records.beside.items()}
    originals = None if records.originals is None else records.originals[at:end]
    return replace(records, **some, beside=beside, originals=originals)
