"""What the batch layer's tables say of themselves, read from the tables alone: what is new since it was last told.

    landed_files ─► landed_since(landing) ─► what `batch_log` got since
    events       ─► unioned_since(boundary) ─► how far `events` reaches, if further than then

So whoever announces news needs nothing from the run that made it: killed in between, the next one tells it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twofold import boundary, tables
from twofold.lake import Lake

News = dict[str, Any]
"""Plain values, to be sent as JSON."""


def landed_since(lake: Lake, known: Mapping[str, Any]) -> News | None:
    """Files and rows that landed after `known["landing"]`; None where there are none. Files set aside do not count."""
    after = int(known.get("landing", 0))
    taken = [row for row in landed_files(lake, f"landing > {after}") if row["reason"] is None]
    if not taken:
        return None
    landings = [row["landing"] for row in taken]
    return {
        "landing": max(landings),
        "landings": len(set(landings)),
        "files": len(taken),
        "rows": sum(row["rows"] for row in taken),
        "size_bytes": sum(row["size_bytes"] for row in taken),
    }


def unioned_since(lake: Lake, known: Mapping[str, Any]) -> News | None:
    """How far `events` reaches; None where it reached as far when `known` was told."""
    history = lake.history(tables.EVENTS)
    edge = boundary.boundary(history, lake.name)
    snapshot = history.nearest(boundary.Boundary.KEY)
    reach = {"landing": edge.landing, "offsets": {str(p): end for p, end in sorted(edge.offsets.items())}}
    if snapshot is None or not (edge.landing or edge.offsets) or reach == {key: known.get(key) for key in reach}:
        return None
    return {**reach, "snapshot": str(snapshot.id), "rows": snapshot.rows}


def set_aside(lake: Lake) -> dict[str, str]:
    """Files that lie in the inbox as they were when they could not be read: name → reason."""
    last: dict[str, dict[str, Any]] = {}
    for row in landed_files(lake):
        if row["file"] not in last or row["landing"] > last[row["file"]]["landing"]:
            last[row["file"]] = row
    lying = {file.name: file.version for file in lake.inbox().files()}
    return {
        name: row["reason"] for name, row in sorted(last.items()) if row["reason"] and lying.get(name) == row["version"]
    }


def landed_files(lake: Lake, condition: str = "true") -> list[dict[str, Any]]:
    """Rows of `landed_files` that meet a condition."""
    table = lake.find(tables.LANDED_FILES)
    if table is None:
        return []
    rows: list[dict[str, Any]] = table.scan(row_filter=condition).to_arrow().to_pylist()
    return rows
