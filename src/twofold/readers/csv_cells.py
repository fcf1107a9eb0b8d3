"""CSV rows as the pipeline file says that they are written: columns by fields, its texts for null, true and false, its
decimal sign.

    csv_rows: columns by their names in the file ─► columns by field ─► `-` is null, `yes` is true, `12,50` is 12.50
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from twofold.contract import reasons
from twofold.contract.reasons import Reason
from twofold.contract.records import CellRecords, too_large
from twofold.definition.model import Field, Files, Pipeline
from twofold.definition.time_formats import EPOCHS
from twofold.readers import csv_rows

_COMMA_NUMBER = rb"\A[^.,]*(,[^.,]*)?\z"


def read(blocks: Iterator[bytes], pipeline: Pipeline, window_bytes: int) -> Iterator[CellRecords]:
    """The rows of a file, numbered from 1; SetAside where the file as a whole is no CSV of this pipeline."""
    files = pipeline.files
    fields = [one for one in pipeline.event.fields.values() if one.is_in_cells]
    wanted = {one.source.column for one in fields}
    for records in csv_rows.read(
        blocks, wanted, delimiter=files.delimiter, header=files.header, window_bytes=window_bytes
    ):
        # As the cells stand in the file: what they are read as may be shorter, or longer.
        large = too_large(records.columns.values(), pipeline.event.max_bytes)
        yield _of_fields(replace(records, faults={**large, **records.faults}), fields, files)


def _of_fields(records: CellRecords, fields: list[Field], files: Files) -> CellRecords:
    columns: dict[str, pa.Array] = {}
    faults: dict[int, Reason] = {}
    for field in fields:
        cells = records.columns.get(field.source.column)
        if cells is not None:
            columns[field.name] = _cells(cells, field, files, faults)
    return replace(records, columns=columns, faults={**faults, **records.faults})


def _cells(cells: pa.Array, field: Field, files: Files, faults: dict[int, Reason]) -> pa.Array:
    """The cells of a field as every CSV has them; a number with another decimal sign than declared is a fault."""
    if files.null_values:
        cells = pc.if_else(pc.is_in(cells, _texts(files.null_values)), None, cells)
    if field.type.name == "boolean":
        given = cells
        for word, texts in (("true", files.true_values), ("false", files.false_values)):
            if texts:
                cells = pc.if_else(pc.is_in(given, _texts(texts)), word.encode(), cells)
    if files.decimal == "," and (field.type.is_number or field.format in EPOCHS):
        plain = pc.fill_null(pc.match_substring_regex(cells, _COMMA_NUMBER), True)
        for index in pc.indices_nonzero(pc.invert(plain)).to_pylist():
            text = cells[index].as_py().decode(errors="replace")
            faults.setdefault(index, reasons.wrong_type(field.label, str(field.type), text))
        cells = pc.if_else(plain, pc.replace_substring(cells, b",", b"."), None)
    return cells


def _texts(values: tuple[str, ...]) -> pa.Array:
    return pa.array([value.encode() for value in values], pa.binary())
