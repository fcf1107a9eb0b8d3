"""What becomes of the data: overview, batch and union, data quality."""

from __future__ import annotations

from monitoring.boards.panels import (
    ALERT,
    DAGS,
    FAILED_TASK,
    FIRING,
    GREEN,
    ORANGE,
    PROVED,
    Board,
    P,
    Panel,
    atleast,
    bad_from,
    gained,
    good_from,
    last,
    of,
    per_second,
    stat,
    tile,
    upto,
)

_AWAY = ((0, "down"), (1, "up"))

_NOW = (
    stat(
        "Alerts",
        "Alerts that fire now, those of the services included. Green: none.",
        "short",
        {"": f"count({FIRING}) or vector(0)"},
        bad_from(1),
        width=4,
    ),
    Panel(
        "Firing",
        "Each alert that fires now; its runbook is one click away. Alertmanager's message says what is lost meanwhile.",
        "none",
        {"": FIRING},
        bad_from(1),
        kind="table",
        width=14,
        no_value="Nothing is wrong.",
        only=ALERT,
    ),
    Panel(
        "Who answers",
        "Whether exporters, broker and store answer Prometheus. Where one does not, its panels stand still.",
        "short",
        {"{{job}}": "min by (job) (up)"},
        atleast(0.5, 1),
        kind="state-timeline",
        width=6,
        words=_AWAY,
        runbook="target-down",
    ),
)
_LAYERS = (
    tile(
        "Streaming job's heartbeat",
        "Seconds since the last heartbeat of the speed layer's driver; past 20 it is frozen or dead.",
        "s",
        {"{{pipeline}}": of("pipeline:stream_heartbeat_age:seconds")},
        upto(10, 20),
        decimals=0,
        runbook="stream-down",
    ),
    tile(
        "Freshness",
        "Age of the newest moment whose records have all landed: how far queries are behind what Kafka has.",
        "s",
        {"{{pipeline}}": of("pipeline:stream_freshness:seconds")},
        upto(60, 300),
        decimals=0,
        runbook="stream-not-fresh",
    ),
    tile(
        "Behind Kafka",
        "Records in Kafka that have not landed.",
        "short",
        {"{{pipeline}}": of("pipeline:stream_offsets_behind:sum")},
        upto(10_000, 1_000_000),
        runbook="stream-lagging",
    ),
    tile(
        "Last union",
        "Age of the boundary: what came later answers queries from the logs, and late events wait for it.",
        "s",
        {"{{pipeline}}": of("pipeline:union_boundary_age:seconds")},
        upto(7200, 93600),
        decimals=0,
        runbook="union-overdue",
    ),
    tile(
        "Layers apart",
        "Mean difference of `batch_<view>` and `stream_<view>` over the sealed windows compared last.",
        "percentunit",
        {"{{pipeline}}": of("pipeline_view:compare_difference:ratio")},
        upto(0.1, 0.25),
        decimals=1,
        runbook="limit-passed",
    ),
    tile(
        "Invariants",
        "Share of the invariants that held in the last `twofold prove`; one violated makes it red.",
        "short",
        {"{{pipeline}}": f"avg by (pipeline) ({of('pipeline_invariant:prove_holds:last')})"},
        good_from(1),
        words=((1, "all hold"),),
        no_value="not proved yet",
        runbook="invariant-violated",
        only=PROVED,
    ),
)
_COURSE = (
    Panel(
        "Landed",
        "Records that each layer lands per second. The batch layer lands in bursts, by its schedule.",
        "rps",
        {
            "{{pipeline}} stream": per_second("twofold_stream_outcomes_total", "pipeline"),
            "{{pipeline}} batch": f"{gained(of('twofold_batch_outcomes_total'), '1m', 'pipeline')} / 60",
        },
    ),
    Panel(
        "Freshness, its course",
        "How far queries are behind what Kafka has, over time.",
        "s",
        {"{{pipeline}}": of("pipeline:stream_freshness:seconds")},
        upto(60, 300),
        runbook="stream-not-fresh",
    ),
    Panel(
        "Behind Kafka, its course",
        "Records that have not landed. A saw-tooth is healthy; a slope is a layer that cannot keep up.",
        "short",
        {"{{pipeline}}": of("pipeline:stream_offsets_behind:sum")},
        runbook="stream-lagging",
    ),
    Panel(
        "Time until runs are overdue",
        "Seconds until the next scheduled run counts as missed, its grace included; below 0 it is overdue.",
        "s",
        {"{{pipeline}} {{kind}}": "-" + of("pipeline_kind:run_overdue:seconds")},
        good_from(0),
        runbook="batch-overdue",
    ),
    Panel(
        "Rejected and late",
        "Share of the records that broke the contract, and of rows that came too late for a view.",
        "percentunit",
        {
            "{{pipeline}} rejected": of("pipeline:stream_rejected:ratio10m"),
            "{{pipeline}} {{query}} late": of("pipeline_query:stream_late:ratio10m"),
        },
        upto(0.01, 0.05),
        runbook="rejects-high",
    ),
    Panel(
        "Failed tasks",
        "Airflow's tasks that failed within 15 minutes, their retries used up.",
        "short",
        {"{{dag_id}}": f"sum by (dag_id) (dag_task:ti_failed:increase15m{{{DAGS}}})"},
        bad_from(1),
        no_value="No task has failed.",
        runbook="task-failed",
        only=FAILED_TASK,
    ),
)
OVERVIEW = Board(
    "twofold-overview",
    "1 Overview",
    "Whether both layers are healthy, fresh and in agreement, and what is wrong now.",
    {"What is wrong now": _NOW, "Both layers": _LAYERS, "The last hour": _COURSE},
)


_RUNS = (
    stat(
        "Since the last good run",
        "Age of the last run of each job that ended well.",
        "s",
        {"{{pipeline}} {{kind}}": of("pipeline_kind:run_good_age:seconds")},
        upto(7200, 93600),
        decimals=0,
        runbook="batch-overdue",
    ),
    Panel(
        "Time until overdue",
        "Seconds until the next scheduled run counts as missed: its schedule, and three times as long as it took "
        "last. Below 0 it is overdue.",
        "s",
        {"{{pipeline}} {{kind}}": "-" + of("pipeline_kind:run_overdue:seconds")},
        good_from(0),
        runbook="batch-overdue",
    ),
    Panel(
        "Duration",
        "How long the last good run of each job took.",
        "s",
        {"{{pipeline}} {{kind}}": of("twofold_run_seconds")},
    ),
)
_MOVED = (
    Panel(
        "Landed from files",
        "Records of files within the last hour, by what became of them.",
        "short",
        {"{{pipeline}} {{outcome}}": gained(of("twofold_batch_outcomes_total"), "1h", "pipeline", "outcome")},
        runbook="rejects-high",
    ),
    Panel(
        "Files taken",
        "Files taken, and set aside because they could not be read, within the last hour.",
        "short",
        {"{{pipeline}} {{fate}}": gained(of("twofold_batch_files_total"), "1h", "pipeline", "fate")},
        runbook="files-set-aside",
    ),
    Panel(
        "Unioned",
        "Rows that unions took within the last hour: new ids, corrections of known ones, and duplicates left out.",
        "short",
        {"{{pipeline}} {{result}}": gained(of("twofold_union_rows_total"), "1h", "pipeline", "result")},
    ),
    Panel(
        "Age of the boundary",
        "How long ago everything landed by then was unioned.",
        "s",
        {"{{pipeline}}": of("pipeline:union_boundary_age:seconds")},
        upto(7200, 93600),
        runbook="union-overdue",
    ),
    stat(
        "Sealed through",
        "Event time up to which windows of a view are final. In a replay it is as old as the events.",
        "dateTimeAsIso",
        {"{{pipeline}} {{view}}": "1000 * " + last("twofold_union_sealed_through_timestamp_seconds", "view")},
    ),
    stat(
        "Healed",
        "Late rows that the last unions brought into their windows.",
        "short",
        {"{{pipeline}}": last("twofold_compare_healed_rows")},
    ),
)
_AGREEMENT = (
    Panel(
        "Difference",
        "Mean difference of `batch_<view>` and `stream_<view>` over the sealed windows compared last, by view.",
        "percentunit",
        {"{{pipeline}} {{view}}": of("pipeline_view:compare_difference:ratio")},
        upto(0.1, 0.25),
        width=12,
        runbook="limit-passed",
    ),
    Panel(
        "Windows",
        "Windows compared after the last union, and those of them that differ.",
        "short",
        {
            "{{pipeline}} {{view}} compared": last("twofold_compare_windows", "view"),
            "{{pipeline}} {{view}} different": last("twofold_compare_different_windows", "view"),
        },
        width=12,
        runbook="limit-passed",
    ),
)
_TABLES = (
    Panel(
        "Rows",
        "Rows of each table, measured by unions and maintenance.",
        "short",
        {"{{pipeline}} {{table}}": last("twofold_table_rows", "table")},
    ),
    Panel(
        "Size",
        "Bytes of each table's data files.",
        "bytes",
        {"{{pipeline}} {{table}}": last("twofold_table_bytes", "table")},
        runbook="disk-low",
    ),
    Panel(
        "Files", "Data files of each table.", "short", {"{{pipeline}} {{table}}": last("twofold_table_files", "table")}
    ),
    Panel(
        "Small files",
        "Data files below 8 MiB. A saw-tooth is healthy: maintenance puts them together.",
        "short",
        {"{{pipeline}} {{table}}": last("twofold_table_small_files", "table")},
        upto(20_000, 50_000),
        runbook="small-files",
    ),
    Panel(
        "Snapshots",
        "Snapshots kept of each table. They grow without end where maintenance does not run.",
        "short",
        {"{{pipeline}} {{table}}": last("twofold_table_snapshots", "table")},
        runbook="maintenance-overdue",
    ),
    Panel(
        "Failed tasks by job",
        "Tasks that failed for good within the last hour, by job.",
        "short",
        {"{{pipeline}} {{kind}}": gained(of("twofold_run_failed_total"), "1h", "pipeline", "kind")},
        bad_from(1),
        no_value="No task has failed.",
        runbook="task-failed",
        only=FAILED_TASK,
    ),
)
BATCH = Board(
    "twofold-batch",
    "3 Batch and union",
    "Runs and their schedule, what they moved, how far the layers are apart, and the tables.",
    {"Runs": _RUNS, "What they moved": _MOVED, "Agreement of the layers": _AGREEMENT, "Tables": _TABLES},
)


def _shares(series: str) -> str:
    """Each outcome's part of all."""
    return f"{of(series)} / on (pipeline) group_left sum by (pipeline) ({of(series)})"


_OUTCOMES = (
    Panel(
        "Stream",
        "Share of each outcome among the records streamed within ten minutes.",
        "percentunit",
        {"{{pipeline}} {{outcome}}": _shares("pipeline_outcome:stream_outcomes:increase10m")},
        stacked=True,
        runbook="rejects-high",
    ),
    Panel(
        "Files",
        "Share of each outcome among the records of files landed within an hour.",
        "percentunit",
        {"{{pipeline}} {{outcome}}": _shares("pipeline_outcome:batch_outcomes:increase1h")},
        stacked=True,
        runbook="rejects-high",
    ),
    Panel(
        "Rejected",
        "Share of the records that broke the contract.",
        "percentunit",
        {
            "{{pipeline}} stream": of("pipeline:stream_rejected:ratio10m"),
            "{{pipeline}} files": of("pipeline:batch_rejected:ratio1h"),
        },
        upto(0.005, 0.01),
        runbook="rejects-high",
    ),
)
_REASONS = (
    Panel(
        "By reason",
        "Streamed records rejected per second, by their first fault. `twofold rejects` shows them.",
        "rps",
        {"{{pipeline}} {{reason}}": per_second("twofold_stream_rejected_total", "pipeline", "reason")},
        width=12,
        stacked=True,
        runbook="rejects-high",
    ),
    stat(
        "Since the start",
        "Records rejected since the exporter's start, by the kind of their first fault.",
        "short",
        {"{{pipeline}} {{reason}}": f"sum by (pipeline, reason) ({of('twofold_stream_rejected_total')})"},
        bad_from(1),
        width=12,
        runbook="rejects-high",
    ),
)
_LATE = (
    Panel(
        "Late",
        "Share of the rows for a view that came after its watermark, within ten minutes.",
        "percentunit",
        {"{{pipeline}} {{query}}": of("pipeline_query:stream_late:ratio10m")},
        upto(0.01, 0.05),
        runbook="late-high",
    ),
    Panel(
        "Healed",
        "Late rows that the last unions brought into their windows.",
        "short",
        {"{{pipeline}}": last("twofold_compare_healed_rows")},
    ),
    Panel(
        "Duplicates and corrections",
        "Rows that unions left out as duplicates, or took as corrections, since the exporter's start.",
        "short",
        {
            "{{pipeline}} {{result}}": "sum by (pipeline, result) "
            f'(twofold_union_rows_total{{{P},result=~"duplicate|corrected"}})'
        },
    ),
)
_PROOF = (
    stat(
        "Invariants",
        "What the last `twofold prove` found, by invariant. A day and two hours after it this is empty.",
        "short",
        {"{{pipeline}} {{invariant}}": of("pipeline_invariant:prove_holds:last")},
        good_from(1),
        width=12,
        words=((0, "violated"), (1, "holds")),
        no_value="not proved yet",
        runbook="invariant-violated",
        only=PROVED,
    ),
    stat(
        "Not there yet",
        "Invariants that the last proof could only check in part, as the layer was behind. Not a violation.",
        "short",
        {"{{pipeline}} {{invariant}}": last("twofold_prove_behind", "invariant")},
        ((None, GREEN), (1, ORANGE)),
        width=12,
        words=((0, "complete"), (1, "behind")),
        no_value="not proved yet",
        runbook="stream-lagging",
        only=PROVED,
    ),
)
QUALITY = Board(
    "twofold-quality",
    "6 Data quality",
    "What became of the records and why, what came late and was healed, and what was proved.",
    {"Outcomes": _OUTCOMES, "Rejects": _REASONS, "Late and healed": _LATE, "Proof": _PROOF},
)
