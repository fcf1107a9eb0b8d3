"""1 Overview: whether both layers are healthy, fresh and in agreement, and what is wrong now."""

from __future__ import annotations

from monitoring.boards.model import ALERT, FAILED_TASK, GREEN, PROVED, RED, Board, Panel, Query, Row, atleast, upto
from monitoring.boards.promql import DAGS, FIRING, gained, of, per_second

_AWAY = ((0, "down"), (1, "up"))

NOW = Row(
    "What is wrong now",
    (
        Panel(
            "Alerts",
            "Alerts that fire now, those of the services included. Green: none.",
            "short",
            (Query(f"count({FIRING}) or vector(0)"),),
            "stat",
            ((1, RED),),
            GREEN,
            width=4,
        ),
        Panel(
            "Firing",
            "Each alert that fires now; the cure is one click away. What is lost meanwhile is told by Alertmanager.",
            "none",
            (Query(FIRING, only=ALERT),),
            "table",
            ((1, RED),),
            GREEN,
            width=14,
            no_value="Nothing is wrong.",
        ),
        Panel(
            "Who answers",
            "Whether exporters, broker and store answer Prometheus. Where one does not, its panels stand still.",
            "short",
            (Query("min by (job) (up)", "{{job}}"),),
            "state-timeline",
            atleast(0.5, 1),
            RED,
            width=6,
            words=_AWAY,
            runbook="target-down",
        ),
    ),
)
LAYERS = Row(
    "Both layers",
    (
        Panel(
            "Streaming job told of itself",
            "Seconds since the speed layer's driver last told of itself; past 20 it is frozen or dead.",
            "s",
            (Query(of("pipeline:stream_heartbeat_age:seconds"), "{{pipeline}}"),),
            "stat",
            upto(10, 20),
            GREEN,
            width=4,
            height=5,
            decimals=0,
            runbook="stream-down",
        ),
        Panel(
            "Freshness",
            "Age of the newest moment whose records have all landed: how far queries are behind what Kafka has.",
            "s",
            (Query(of("pipeline:stream_freshness:seconds"), "{{pipeline}}"),),
            "stat",
            upto(60, 300),
            GREEN,
            width=4,
            height=5,
            decimals=0,
            runbook="stream-not-fresh",
        ),
        Panel(
            "Behind Kafka",
            "Records in Kafka that have not landed.",
            "short",
            (Query(of("pipeline:stream_offsets_behind:sum"), "{{pipeline}}"),),
            "stat",
            upto(10_000, 1_000_000),
            GREEN,
            width=4,
            height=5,
            runbook="stream-lagging",
        ),
        Panel(
            "Last union",
            "Age of the boundary: what came later answers queries from the logs, and late events wait for it.",
            "s",
            (Query(of("pipeline:union_boundary_age:seconds"), "{{pipeline}}"),),
            "stat",
            upto(7200, 93600),
            GREEN,
            width=4,
            height=5,
            decimals=0,
            runbook="union-overdue",
        ),
        Panel(
            "Layers apart",
            "Mean difference of `batch_<view>` and `stream_<view>` over the sealed windows compared last.",
            "percentunit",
            (Query(of("pipeline_view:compare_difference:ratio"), "{{pipeline}}"),),
            "stat",
            upto(0.1, 0.25),
            GREEN,
            width=4,
            height=5,
            decimals=1,
            runbook="limit-passed",
        ),
        Panel(
            "Invariants",
            "Share of the invariants that held in the last `twofold prove`; one violated makes it red.",
            "short",
            (
                Query(
                    f"avg by (pipeline) ({of('pipeline_invariant:prove_holds:last')})",
                    "{{pipeline}}",
                    only=PROVED,
                ),
            ),
            "stat",
            ((1, GREEN),),
            RED,
            width=4,
            height=5,
            words=((1, "all hold"),),
            no_value="not proved yet",
            runbook="invariant-violated",
        ),
    ),
)
COURSE = Row(
    "The last hour",
    (
        Panel(
            "Landed",
            "Records that each layer lands per second. The batch layer lands in bursts, by its schedule.",
            "rps",
            (
                Query(
                    per_second("twofold_stream_outcomes_total", "pipeline"),
                    "{{pipeline}} stream",
                ),
                Query(
                    f"{gained(of('twofold_batch_outcomes_total'), '1m', 'pipeline')} / 60",
                    "{{pipeline}} batch",
                ),
            ),
        ),
        Panel(
            "Freshness, its course",
            "How far queries are behind what Kafka has, over time.",
            "s",
            (Query(of("pipeline:stream_freshness:seconds"), "{{pipeline}}"),),
            steps=upto(60, 300),
            base=GREEN,
            runbook="stream-not-fresh",
        ),
        Panel(
            "Behind Kafka, its course",
            "Records that have not landed. A saw-tooth is healthy; a slope is a layer that cannot keep up.",
            "short",
            (Query(of("pipeline:stream_offsets_behind:sum"), "{{pipeline}}"),),
            runbook="stream-lagging",
        ),
        Panel(
            "Time until runs are overdue",
            "Seconds until the next scheduled run counts as missed, its grace included; below 0 it is overdue.",
            "s",
            (Query("-" + of("pipeline_kind:run_overdue:seconds"), "{{pipeline}} {{kind}}"),),
            steps=((0, GREEN),),
            base=RED,
            runbook="batch-overdue",
        ),
        Panel(
            "Rejected and late",
            "Share of the records that broke the contract, and of rows that came too late for a view.",
            "percentunit",
            (
                Query(of("pipeline:stream_rejected:ratio10m"), "{{pipeline}} rejected"),
                Query(of("pipeline_query:stream_late:ratio10m"), "{{pipeline}} {{query}} late"),
            ),
            steps=upto(0.01, 0.05),
            base=GREEN,
            runbook="rejects-high",
        ),
        Panel(
            "Failed tasks",
            "Airflow's tasks that failed within 15 minutes, their retries used up.",
            "short",
            (
                Query(
                    f"sum by (dag_id) (dag_task:ti_failed:increase15m{{{DAGS}}})",
                    "{{dag_id}}",
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
    "twofold-overview",
    "1 Overview",
    "Whether both layers are healthy, fresh and in agreement, and what is wrong now.",
    (NOW, LAYERS, COURSE),
)
