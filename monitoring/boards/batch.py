"""3 Batch and union: runs and their schedule, what they moved, agreement of the layers, the tables."""

from __future__ import annotations

from monitoring.boards.model import FAILED_TASK, GREEN, RED, Board, Panel, Query, Row, upto
from monitoring.boards.promql import gained, last, of

RUNS = Row(
    "Runs",
    (
        Panel(
            "Since the last good run",
            "Age of the last run of each job that ended well.",
            "s",
            (Query(of("pipeline_kind:run_good_age:seconds"), "{{pipeline}} {{kind}}"),),
            "stat",
            upto(7200, 93600),
            GREEN,
            decimals=0,
            runbook="batch-overdue",
        ),
        Panel(
            "Time until overdue",
            "Seconds until the next scheduled run counts as missed: its schedule, and three times as long as it took "
            "last. Below 0 it is overdue.",
            "s",
            (Query("-" + of("pipeline_kind:run_overdue:seconds"), "{{pipeline}} {{kind}}"),),
            steps=((0, GREEN),),
            base=RED,
            runbook="batch-overdue",
        ),
        Panel(
            "Duration",
            "How long the last good run of each job took.",
            "s",
            (Query(of("twofold_run_seconds"), "{{pipeline}} {{kind}}"),),
        ),
    ),
)
MOVED = Row(
    "What they moved",
    (
        Panel(
            "Landed from files",
            "Records of files within the last hour, by what became of them.",
            "short",
            (
                Query(
                    gained(of("twofold_batch_outcomes_total"), "1h", "pipeline", "outcome"), "{{pipeline}} {{outcome}}"
                ),
            ),
            runbook="rejects-high",
        ),
        Panel(
            "Files taken",
            "Files taken, and set aside because they could not be read, within the last hour.",
            "short",
            (Query(gained(of("twofold_batch_files_total"), "1h", "pipeline", "fate"), "{{pipeline}} {{fate}}"),),
            runbook="files-set-aside",
        ),
        Panel(
            "Unioned",
            "Rows that unions took within the last hour: new ids, corrections of known ones, and duplicates left out.",
            "short",
            (Query(gained(of("twofold_union_rows_total"), "1h", "pipeline", "result"), "{{pipeline}} {{result}}"),),
        ),
        Panel(
            "Age of the boundary",
            "How long ago everything landed by then was unioned.",
            "s",
            (Query(of("pipeline:union_boundary_age:seconds"), "{{pipeline}}"),),
            steps=upto(7200, 93600),
            base=GREEN,
            runbook="union-overdue",
        ),
        Panel(
            "Sealed through",
            "Event time up to which windows of a view are final. In a replay it is as old as the events.",
            "dateTimeAsIso",
            (
                Query(
                    "1000 * " + last("twofold_union_sealed_through_timestamp_seconds", "view"), "{{pipeline}} {{view}}"
                ),
            ),
            "stat",
        ),
        Panel(
            "Healed",
            "Late rows that the last unions brought into their windows.",
            "short",
            (Query(last("twofold_compare_healed_rows"), "{{pipeline}}"),),
            "stat",
        ),
    ),
)
AGREEMENT = Row(
    "Agreement of the layers",
    (
        Panel(
            "Difference",
            "Mean difference of `batch_<view>` and `stream_<view>` over the sealed windows compared last, by view.",
            "percentunit",
            (Query(of("pipeline_view:compare_difference:ratio"), "{{pipeline}} {{view}}"),),
            steps=upto(0.1, 0.25),
            base=GREEN,
            width=12,
            runbook="limit-passed",
        ),
        Panel(
            "Windows",
            "Windows compared after the last union, and those of them that differ.",
            "short",
            (
                Query(last("twofold_compare_windows", "view"), "{{pipeline}} {{view}} compared"),
                Query(last("twofold_compare_different_windows", "view"), "{{pipeline}} {{view}} different"),
            ),
            width=12,
            runbook="limit-passed",
        ),
    ),
)
TABLES = Row(
    "Tables",
    (
        Panel(
            "Rows",
            "Rows of each table, measured by unions and maintenance.",
            "short",
            (Query(last("twofold_table_rows", "table"), "{{pipeline}} {{table}}"),),
        ),
        Panel(
            "Size",
            "Bytes of each table's data files.",
            "bytes",
            (Query(last("twofold_table_bytes", "table"), "{{pipeline}} {{table}}"),),
            runbook="disk-low",
        ),
        Panel(
            "Files",
            "Data files of each table.",
            "short",
            (Query(last("twofold_table_files", "table"), "{{pipeline}} {{table}}"),),
        ),
        Panel(
            "Small files",
            "Data files below 8 MiB. A saw-tooth is healthy: maintenance puts them together.",
            "short",
            (Query(last("twofold_table_small_files", "table"), "{{pipeline}} {{table}}"),),
            steps=upto(20_000, 50_000),
            base=GREEN,
            runbook="small-files",
        ),
        Panel(
            "Snapshots",
            "Snapshots kept of each table. They grow without end where maintenance does not run.",
            "short",
            (Query(last("twofold_table_snapshots", "table"), "{{pipeline}} {{table}}"),),
            runbook="maintenance-overdue",
        ),
        Panel(
            "Failed tasks by job",
            "Tasks that failed for good within the last hour, by job.",
            "short",
            (
                Query(
                    gained(of("twofold_run_failed_total"), "1h", "pipeline", "kind"),
                    "{{pipeline}} {{kind}}",
                    only=FAILED_TASK,
                ),
            ),
            steps=((1, RED),),
            base=GREEN,
            no_value="No task has failed.",
            runbook="task-failed",
        ),
    ),
)

BOARD = Board(
    "twofold-batch",
    "3 Batch and union",
    "Runs and their schedule, what they moved, how far the layers are apart, and the tables.",
    (RUNS, MOVED, AGREEMENT, TABLES),
)
