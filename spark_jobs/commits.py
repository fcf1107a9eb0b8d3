"""Commits that carry their own account: state in the snapshot's summary, atomic with the data."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql.readwriter import DataFrameWriterV2


def tagged(writer: DataFrameWriterV2, state: Mapping[str, str]) -> DataFrameWriterV2:
    """Put `state` (see `twofold.boundary.encode`) into the summary of the snapshot that `writer` commits."""
    for key, value in state.items():
        writer = writer.option(f"snapshot-property.{key}", value)
    return writer
