"""A maintenance report in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from twofold.job_metrics import SMALL_BYTES


def sentences(report: Mapping[str, Any]) -> Iterator[str]:
    """A line for the run, one per table, and one for each thing out of the ordinary."""
    tense = "would be done (dry run)" if report["dry_run"] else "done"
    yield f"{report['pipeline']}: {tense} in {report['seconds']} s"
    for name, table in report["tables"].items():
        yield f"  {name:<24} {_table(table)}"
    if report["retained"]["first_day"] is not None:
        rows, day = report["retained"]["deleted_rows"], report["retained"]["first_day"]
        yield f"  stream_log: {rows:,} records before {day} deleted by retention"
    if report["inbox_leftovers"]:
        yield f"  {report['inbox_leftovers']:,} unfinished copies removed from the inbox"
    beyond = report["ids_beyond_horizon"]
    if beyond["ids"]:
        yield (
            f"  warning: {beyond['ids']:,} ids have rows further apart than event.id_horizon, so their duplicates are "
            f"not found: {', '.join(beyond['shown'])}; raise id_horizon and `twofold rebuild {report['pipeline']}`"
        )


def _table(table: Mapping[str, Any]) -> str:
    expired, rewritten = table["expired"], table["rewritten"]
    before, after = table["before"], table["after"] or table["before"]
    change = f"{before['count']:,} → " if table["after"] else ""
    parts = [f"{change}{after['count']:,} files, {after['small']:,} of them below {SMALL_BYTES >> 20} MiB"]
    if rewritten["files"]:
        parts.append(f"{rewritten['size_bytes']:,} bytes rewritten")
    if rewritten["conflict"]:
        parts.append("not rewritten: another job changed it meanwhile")
    if table["manifests"]:
        parts.append(f"{table['manifests']:,} manifests rewritten")
    parts.append(f"{expired['snapshots']:,} snapshots expired, {expired['kept']:,} kept{_because(expired)}")
    if expired["files"]:
        parts.append(f"{expired['files']:,} files of theirs deleted")
    if table["orphans"]:
        parts.append(f"{table['orphans']:,} orphans removed")
    return "; ".join(parts)


def _because(expired: Mapping[str, Any]) -> str:
    """The guard that keeps the most, where it is not simply the number to keep."""
    if not expired["guards"] or not expired["kept"]:
        return ""
    name, kept = max(expired["guards"].items(), key=lambda guard: guard[1])
    return f" ({name})" if kept == expired["kept"] else ""
