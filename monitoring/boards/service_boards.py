"""What runs: the speed layer with its producer, and Airflow."""

from __future__ import annotations

from monitoring.boards.panels import (
    DAGS,
    FAILED_TASK,
    Board,
    P,
    Panel,
    atleast,
    bad_from,
    gained,
    last,
    of,
    per_second,
    quantile,
    stat,
    upto,
)

_WATERMARK = of("twofold_stream_watermark_timestamp_seconds")


def _ended(state: str) -> str:
    return gained(f"airflow_dagrun_duration_{state}_count{{{DAGS}}}", "1h", "dag_id")


def _mean(metric: str, *by: str) -> str:
    """Of what Airflow has measured since the exporter's start."""
    labels = ", ".join(by)
    return f"sum by ({labels}) ({metric}_sum{{{DAGS}}}) / sum by ({labels}) ({metric}_count{{{DAGS}}})"


_INGEST = (
    Panel(
        "Outcomes",
        "Records landed per second, by what became of them.",
        "rps",
        {"{{pipeline}} {{outcome}}": per_second("twofold_stream_outcomes_total", "pipeline", "outcome")},
        stacked=True,
    ),
    Panel(
        "Behind, by partition",
        "Records in Kafka that have not landed. One partition that stands out has a hot key, or a slow leader.",
        "short",
        {"{{pipeline}} {{partition}}": of("twofold_stream_offsets_behind")},
        runbook="stream-lagging",
    ),
    Panel(
        "Since progress",
        "Age of the last finished batch, or of the last report that Kafka has nothing new; and of the driver's "
        "heartbeat. The ingest is stalled at 25 s and the trigger.",
        "s",
        {
            "{{pipeline}} ingest": of("pipeline:stream_progress_age:seconds"),
            "{{pipeline}} driver": of("pipeline:stream_heartbeat_age:seconds"),
        },
        upto(20, 30),
        runbook="stream-stalled",
    ),
    Panel(
        "Rows in and processed",
        "Rate at which rows arrive, and at which the last batch went. Where arrival is the faster one for long, "
        "the job falls behind.",
        "rps",
        {
            "{{pipeline}} {{query}} in": of("twofold_stream_input_rows_per_second"),
            "{{pipeline}} {{query}} processed": of("twofold_stream_processed_rows_per_second"),
        },
        runbook="stream-lagging",
    ),
    Panel(
        "Batch duration",
        "99th percentile: of every hundred batches one takes longer. Far above the trigger, data get old.",
        "s",
        {"{{pipeline}} {{query}}": quantile(0.99, "twofold_stream_batch_seconds", "pipeline", "query")},
        upto(10, 25),
        runbook="stream-stalled",
    ),
    Panel(
        "Parts of the last batch",
        "Where the time of the last batch of the ingest went: reading offsets, planning, writing, committing.",
        "s",
        {"{{pipeline}} {{part}}": f'twofold_stream_batch_part_seconds{{{P},query="log",part!="triggerExecution"}}'},
        stacked=True,
    ),
)
_VIEWS = (
    stat(
        "Watermark",
        "Event time before which a row is late for a view. In a replay it is as old as the events.",
        "dateTimeAsIso",
        {"{{pipeline}} {{query}}": f"1000 * {_WATERMARK}"},
    ),
    Panel(
        "Speed of event time",
        "Seconds of event time that the watermark moves per second: 1 live, more in a replay, 0 where it stands.",
        "short",
        {"{{pipeline}} {{query}}": f"clamp_min(deriv(({_WATERMARK} > 0)[5m:]), 0)"},
    ),
    Panel(
        "Late rows",
        "Rows per second that were too late for a view. The next union heals their windows.",
        "rps",
        {"{{pipeline}} {{query}}": per_second("twofold_stream_late_total", "pipeline", "query")},
        runbook="late-high",
    ),
    Panel(
        "State, rows",
        "Rows that the views keep as state: of each open window and group, of each id that may come again.",
        "short",
        {"{{pipeline}} {{query}}": of("twofold_stream_state_rows")},
    ),
    Panel(
        "State, memory", "Memory of that state.", "bytes", {"{{pipeline}} {{query}}": of("twofold_stream_state_bytes")}
    ),
    Panel(
        "Queries started again",
        "Starts of a query after a failure, over 15 minutes. After twelve failures in a row the job ends.",
        "short",
        {"{{pipeline}} {{query}}": gained(of("twofold_stream_retries_total"), "15m", "pipeline", "query")},
        upto(1, 6),
        runbook="stream-stalled",
    ),
)
_PRODUCER = (
    Panel(
        "Sent and acknowledged",
        "Records per second handed to the Kafka client, and acknowledged by the broker. They belong together.",
        "rps",
        {
            "{{pipeline}} sent": per_second("twofold_producer_sent_total", "pipeline"),
            "{{pipeline}} acknowledged": per_second("twofold_producer_acked_total", "pipeline"),
        },
        runbook="producer-down",
    ),
    Panel(
        "Bytes",
        "Bytes of keys and values sent per second, before compression.",
        "Bps",
        {"{{pipeline}}": per_second("twofold_producer_bytes_total", "pipeline")},
    ),
    Panel(
        "Time to acknowledgement",
        "Median and 99th percentile of one batch each second.",
        "s",
        {
            "{{pipeline}} median": quantile(0.5, "twofold_producer_ack_seconds", "pipeline"),
            "{{pipeline}} 99th": quantile(0.99, "twofold_producer_ack_seconds", "pipeline"),
        },
        upto(1, 10),
        runbook="kafka-away",
    ),
    Panel(
        "Queue",
        "Records sent and not yet acknowledged. It grows while the broker is away.",
        "short",
        {"{{pipeline}}": of("twofold_producer_queue_records")},
        runbook="kafka-away",
    ),
    stat(
        "Position",
        "All records of the source before this one are acknowledged; a killed producer resumes from here.",
        "locale",
        {"{{pipeline}}": last("twofold_producer_position")},
    ),
    Panel(
        "Refused",
        "Records too large for the broker, and runs that it refused for good, over 15 minutes.",
        "short",
        {
            "{{pipeline}} too large": of("pipeline:producer_too_large:increase15m"),
            "{{pipeline}} runs refused": of("pipeline:producer_refused:increase15m"),
        },
        bad_from(1),
        runbook="producer-failing",
    ),
)
_DRIVER = (
    Panel(
        "Heap",
        "Memory of the driver's JVM, used and at most, of each running job. Always near the top: raise "
        "`TWOFOLD_SPARK_DRIVER_MEMORY`.",
        "bytes",
        {
            "{{pipeline}} {{kind}}": of("spark_driver_jvm_heap_used"),
            "{{pipeline}} {{kind}} at most": of("spark_driver_jvm_heap_max"),
        },
    ),
    Panel(
        "Tasks at work",
        "Tasks that the driver's threads work on, of each running job.",
        "short",
        {"{{pipeline}} {{kind}}": of("spark_driver_executor_threadpool_activeTasks")},
    ),
    Panel(
        "Waiting stages",
        "Stages that wait for others. Many, for long: the machine is too small for what runs at once.",
        "short",
        {"{{pipeline}} {{kind}}": of("spark_driver_DAGScheduler_stage_waitingStages")},
    ),
)
SPEED = Board(
    "twofold-speed",
    "2 Speed layer",
    "From the producer over Kafka into stream_log and the streamed views.",
    {"Ingest": _INGEST, "Views": _VIEWS, "Producer": _PRODUCER, "Spark driver": _DRIVER},
)


_PROCESSES = (
    Panel(
        "Heartbeats",
        "Heartbeats per minute of each process. None: it is dead, or hangs.",
        "short",
        {
            name.replace("_", " "): f"60 * sum(rate(airflow_{name}_heartbeat[1m]))"
            for name in ("scheduler", "triggerer", "dag_processor")
        },
        atleast(1, 2),
        runbook="airflow-heartbeat-gone",
    ),
    stat(
        "Import errors",
        "DAG files that cannot be imported; a faulty pipeline file shows here.",
        "short",
        {"": "max(airflow_dag_processing_import_errors)"},
        bad_from(1),
        width=4,
        runbook="dag-import-errors",
    ),
    stat(
        "DAGs",
        "DAGs that Airflow knows: five for each pipeline.",
        "short",
        {"": "max(airflow_dagbag_size)"},
        atleast(1, 5),
        width=4,
        runbook="dag-import-errors",
    ),
    Panel(
        "Scheduler loop",
        "99th percentile of one round of the scheduler. Seconds: the machine or PostgreSQL is overloaded.",
        "s",
        {
            "loop": "histogram_quantile(0.99, sum by (le) "
            "(rate(airflow_scheduler_scheduler_loop_duration_bucket[$__range])))"
        },
        upto(5, 30),
        runbook="airflow-heartbeat-gone",
    ),
    Panel(
        "Parsing all DAG files",
        "Seconds that the DAG processor takes for all files.",
        "s",
        {"parsing": "max(airflow_dag_processing_total_parse_time)"},
        upto(30, 60),
    ),
    Panel(
        "Triggers",
        "Waiting tasks that the triggerer watches, and room for more.",
        "short",
        {"running": "sum(airflow_triggers_running)", "room for": "sum(airflow_triggerer_capacity_left)"},
    ),
    Panel(
        "DAG runs at work",
        "DAG runs in the state running, of all pipelines.",
        "short",
        {"runs": "max(airflow_scheduler_dagruns_running)"},
    ),
)
_RUNS = (
    Panel(
        "DAG runs",
        "Runs that ended within an hour, by outcome.",
        "short",
        {"{{dag_id}} success": _ended("success"), "{{dag_id}} failed": _ended("failed")},
        runbook="task-failed",
        only=FAILED_TASK,
    ),
    Panel(
        "Duration of runs",
        "Mean duration of each DAG's good runs since the exporter's start.",
        "s",
        {"{{dag_id}}": _mean("airflow_dagrun_duration_success", "dag_id")},
    ),
    Panel(
        "Failed tasks",
        "Tasks that failed within 15 minutes, their retries used up.",
        "short",
        {"{{dag_id}} {{task_id}}": f"sum by (dag_id, task_id) (dag_task:ti_failed:increase15m{{{DAGS}}}) > 0"},
        bad_from(1),
        no_value="No task has failed.",
        runbook="task-failed",
        only=FAILED_TASK,
    ),
    Panel(
        "Tasks by outcome",
        "Tasks that ended within an hour. `deferred` waits in the triggerer, `up_for_retry` is tried again.",
        "short",
        {"{{state}}": gained(f"airflow_ti_finish{{{DAGS}}}", "1h", "state")},
        stacked=True,
        runbook="task-failed",
    ),
    Panel(
        "Duration of tasks",
        "Mean duration of each task since the exporter's start.",
        "s",
        {"{{dag_id}} {{task_id}}": _mean("airflow_task_duration", "dag_id", "task_id")},
    ),
    Panel(
        "Waiting for a slot",
        "Mean time that a task is scheduled before it is queued, since the exporter's start. Long: its pool is taken.",
        "s",
        {"{{dag_id}}": _mean("airflow_task_scheduled_duration", "dag_id")},
        upto(60, 600),
    ),
)
_SLOTS = (
    Panel(
        "Executor",
        "Tasks that run, and that are queued; free places for more.",
        "short",
        {
            "running": "sum(airflow_executor_running_tasks)",
            "queued": "sum(airflow_executor_queued_tasks)",
            "free": "sum(airflow_executor_open_slots)",
        },
    ),
    Panel(
        "Pools, taken",
        "Slots of each pool that running tasks hold. The pool `spark` has one: Spark's jobs run one at a time.",
        "short",
        {"{{pool_name}}": "sum by (pool_name) (airflow_pool_running_slots)"},
    ),
    Panel(
        "Pools, waiting",
        "Tasks that are queued or scheduled for each pool.",
        "short",
        {"{{pool_name}}": "sum by (pool_name) (airflow_pool_queued_slots + airflow_pool_scheduled_slots)"},
        upto(5, 20),
    ),
)
AIRFLOW = Board(
    "twofold-airflow",
    "4 Airflow",
    "Airflow's processes, the runs and tasks of the pipelines' DAGs, and its slots.",
    {"Processes": _PROCESSES, "Runs": _RUNS, "Slots": _SLOTS},
)
