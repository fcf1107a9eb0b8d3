"""Which tables are maintained, and how each is laid out."""

from __future__ import annotations

from dataclasses import dataclass

from twofold import catalog as catalogs
from twofold import tables
from twofold.definition.model import Pipeline, View
from twofold.settings import Settings


@dataclass(frozen=True)
class Layout:
    """How one table's files are rewritten."""

    table: str
    order: str | None
    """Sort order of rewritten files: "" is the table's own, None leaves the rows as they lie."""
    append_only: bool = False
    """Its writer only appends, so a rewrite gets in nobody's way."""
    versions_of: View | None = None
    """The view of whose rows only the newest versions are left."""


def layouts(settings: Settings, pipeline: Pipeline) -> list[Layout]:
    """All tables of the pipeline that exist; view tables only of declared views."""
    wanted = [
        Layout(tables.STREAM_LOG, "kafka_partition, kafka_offset", append_only=True),
        Layout(tables.BATCH_LOG, "landing, file, row", append_only=True),
        Layout(tables.LANDED_FILES, None, append_only=True),
        Layout(tables.EVENTS, ""),
    ]
    catalog = catalogs.load(settings)
    for view in pipeline.views.values():
        wanted.append(Layout(tables.batch_view_name(view), None))
        wanted.append(Layout(tables.stream_view_name(view), None, append_only=True, versions_of=view))
    return [layout for layout in wanted if catalogs.find(catalog, pipeline.name, layout.table) is not None]
