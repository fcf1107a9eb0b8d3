"""`unified_<view>` in DuckDB: sealed windows from the batch layer, later ones from the speed layer."""

from __future__ import annotations

from twofold import boundary, serving, tables
from twofold.definition.model import Pipeline, View
from twofold.errors import QueryError
from twofold.reader.events import Read
from twofold.reader.pinned import Pinned


def unified(pipeline: Pipeline, view: View, batch: Pinned, stream: Pinned, read: Read) -> str:
    """The query of `unified_<view>`, in DuckDB's dialect; `batch` must have been pinned before `stream`."""
    made = [pinned for pinned in (batch, stream) if pinned.table is not None]
    if not made:
        raise never_made(pipeline, f"unified_{view.name}")
    for pinned in made:
        _has_measures(pipeline, view, pinned)
    relations = {pinned.name: read(pinned, pinned.all_files) for pinned in made}
    if (name := stream.name) in relations and _is_versioned(view, stream):
        relations[name] = f"({serving.newest(view, view.measures, relations[name])})"
    empty = f"(SELECT * FROM {relations[made[0].name]} WHERE FALSE)"
    folded = boundary.folded(batch.history)
    text = serving.unified_view(
        view,
        view.measures,
        relations.get(batch.name, empty),
        relations.get(stream.name, empty),
        folded.sealed_through if folded else None,
    )
    return serving.duckdb(text)


def in_force(view: View, stream: Pinned, relation: str) -> str:
    """The newest row of each window and group; an earlier release kept only one."""
    if not _is_versioned(view, stream):
        return f"SELECT * FROM {relation}"
    return serving.duckdb(serving.newest(view, view.measures, relation))


def _is_versioned(view: View, stream: Pinned) -> bool:
    return {column.name for column in stream.columns} >= {*view.by, *view.measures, tables.VERSION}


def never_made(pipeline: Pipeline, name: str) -> QueryError:
    """A view's table is asked for before any job made it."""
    return QueryError(
        f"{pipeline.name}.{name} is not there yet: no job has computed this view",
        f"run `twofold stream {pipeline.name}` or `twofold union {pipeline.name}` first",
    )


def _has_measures(pipeline: Pipeline, view: View, pinned: Pinned) -> None:
    known = {column.name for column in pinned.columns}
    missing = [name for name in (*view.by, *view.measures) if name not in known]
    if missing:
        raise QueryError(
            f"{pinned.name} lacks {', '.join(missing)}: the view was declared anew since it was last computed",
            f"restart `twofold stream {pipeline.name}` and run `twofold union {pipeline.name}`",
        )
