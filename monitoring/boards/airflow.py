"""4 Airflow: its processes, the DAGs' runs and tasks, slots."""

from __future__ import annotations

from monitoring.boards.model import FAILED_TASK, GREEN, ORANGE, RED, Board, Panel, Query, Row, atleast, upto
from monitoring.boards.promql import DAGS, gained

_PROCESSES = ("scheduler", "triggerer", "dag_processor")


def _ended(state: str) -> str:
    return gained(f"airflow_dagrun_duration_{state}_count{{{DAGS}}}", "1h", "dag_id")


PROCESSES = Row(
    "Processes",
    (
        Panel(
            "Heartbeats",
            "Signs of life per minute of each process. None: it is dead, or hangs.",
            "short",
            tuple(
                Query(f"60 * sum(rate(airflow_{name}_heartbeat[1m]))", name.replace("_", " ")) for name in _PROCESSES
            ),
            steps=atleast(1, 2),
            base=RED,
            runbook="airflow-heartbeat-gone",
        ),
        Panel(
            "Import errors",
            "DAG files that cannot be imported; a faulty pipeline file shows here.",
            "short",
            (Query("max(airflow_dag_processing_import_errors)"),),
            "stat",
            ((1, RED),),
            GREEN,
            width=4,
            runbook="dag-import-errors",
        ),
        Panel(
            "DAGs",
            "DAGs that Airflow knows: five for each pipeline.",
            "short",
            (Query("max(airflow_dagbag_size)"),),
            "stat",
            atleast(1, 5),
            RED,
            width=4,
            runbook="dag-import-errors",
        ),
        Panel(
            "Scheduler loop",
            "99th percentile of one round of the scheduler. Seconds: the machine or PostgreSQL is overloaded.",
            "s",
            (
                Query(
                    "histogram_quantile(0.99, sum by (le) "
                    "(rate(airflow_scheduler_scheduler_loop_duration_bucket[$__range])))",
                    "loop",
                ),
            ),
            steps=upto(5, 30),
            base=GREEN,
            runbook="airflow-heartbeat-gone",
        ),
        Panel(
            "Parsing all DAG files",
            "Seconds that the DAG processor takes for all files.",
            "s",
            (Query("max(airflow_dag_processing_total_parse_time)", "parsing"),),
            steps=upto(30, 60),
            base=GREEN,
        ),
        Panel(
            "Triggers",
            "Waiting tasks that the triggerer watches, and room for more.",
            "short",
            (
                Query("sum(airflow_triggers_running)", "running"),
                Query("sum(airflow_triggerer_capacity_left)", "room for"),
            ),
        ),
        Panel(
            "DAG runs at work",
            "DAG runs in the state running, of all pipelines.",
            "short",
            (Query("max(airflow_scheduler_dagruns_running)", "runs"),),
        ),
    ),
)
RUNS = Row(
    "Runs",
    (
        Panel(
            "DAG runs",
            "Runs that ended within an hour, by outcome.",
            "short",
            (
                Query(_ended("success"), "{{dag_id}} success"),
                Query(_ended("failed"), "{{dag_id}} failed", only=FAILED_TASK),
            ),
            runbook="task-failed",
        ),
        Panel(
            "Duration of runs",
            "Mean duration of each DAG's good runs since the exporter's start.",
            "s",
            (
                Query(
                    f"sum by (dag_id) (airflow_dagrun_duration_success_sum{{{DAGS}}}) "
                    f"/ sum by (dag_id) (airflow_dagrun_duration_success_count{{{DAGS}}})",
                    "{{dag_id}}",
                ),
            ),
        ),
        Panel(
            "Failed tasks",
            "Tasks that failed within 15 minutes, their retries used up.",
            "short",
            (
                Query(
                    f"sum by (dag_id, task_id) (dag_task:ti_failed:increase15m{{{DAGS}}}) > 0",
                    "{{dag_id}} {{task_id}}",
                    only=FAILED_TASK,
                ),
            ),
            steps=((1, RED),),
            base=GREEN,
            no_value="No task has failed.",
            runbook="task-failed",
        ),
        Panel(
            "Tasks by outcome",
            "Tasks that ended within an hour. `deferred` waits in the triggerer, `up_for_retry` is tried again.",
            "short",
            (Query(gained(f"airflow_ti_finish{{{DAGS}}}", "1h", "state"), "{{state}}"),),
            stacked=True,
            runbook="task-failed",
        ),
        Panel(
            "Duration of tasks",
            "Mean duration of each task since the exporter's start.",
            "s",
            (
                Query(
                    f"sum by (dag_id, task_id) (airflow_task_duration_sum{{{DAGS}}}) "
                    f"/ sum by (dag_id, task_id) (airflow_task_duration_count{{{DAGS}}})",
                    "{{dag_id}} {{task_id}}",
                ),
            ),
        ),
        Panel(
            "Waiting for a slot",
            "Mean time that a task is scheduled before it is queued, since the exporter's start. Long: its pool is "
            "taken.",
            "s",
            (
                Query(
                    f"sum by (dag_id) (airflow_task_scheduled_duration_sum{{{DAGS}}}) "
                    f"/ sum by (dag_id) (airflow_task_scheduled_duration_count{{{DAGS}}})",
                    "{{dag_id}}",
                ),
            ),
            steps=((60, ORANGE), (600, RED)),
            base=GREEN,
        ),
    ),
)
SLOTS = Row(
    "Slots",
    (
        Panel(
            "Executor",
            "Tasks that run, and that are queued; free places for more.",
            "short",
            (
                Query("sum(airflow_executor_running_tasks)", "running"),
                Query("sum(airflow_executor_queued_tasks)", "queued"),
                Query("sum(airflow_executor_open_slots)", "free"),
            ),
        ),
        Panel(
            "Pools, taken",
            "Slots of each pool that running tasks hold. The pool `spark` has one: Spark's jobs run one at a time.",
            "short",
            (Query("sum by (pool_name) (airflow_pool_running_slots)", "{{pool_name}}"),),
        ),
        Panel(
            "Pools, waiting",
            "Tasks that are queued or scheduled for each pool.",
            "short",
            (
                Query(
                    "sum by (pool_name) (airflow_pool_queued_slots + airflow_pool_scheduled_slots)",
                    "{{pool_name}}",
                ),
            ),
            steps=upto(5, 20),
            base=GREEN,
        ),
    ),
)

BOARD = Board(
    "twofold-airflow",
    "4 Airflow",
    "Airflow's processes, the runs and tasks of the pipelines' DAGs, and its slots.",
    (PROCESSES, RUNS, SLOTS),
)
