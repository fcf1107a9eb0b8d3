"""# Maintenance of `<p>`: small files, old snapshots, orphans

Daily, or as `schedule.maintenance` of the pipeline's file says; one run at a time.

| task | does |
|---|---|
| `maintain` | compacts small files, expires snapshots that no reader needs, removes files that nothing refers to |

Each step is guarded (see `docs/maintenance.md`) and safe to repeat, to kill, and to run beside a streaming job.
Manually, with other ages, or as a dry run: `twofold maintain <p> --dry-run`.
"""

from airflow.sdk import CronTriggerTimetable

from twofold_airflow import wiring
from twofold_airflow.spark_job import SparkJobOperator

for pipeline in wiring.pipelines():
    schedule = CronTriggerTimetable(pipeline.schedule.maintenance, timezone="UTC")
    with wiring.pipeline_dag(pipeline, "maintenance", __doc__, schedule):
        SparkJobOperator(task_id="maintain", pipeline=pipeline.name, job="maintenance", short_lived=False)
