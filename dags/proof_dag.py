"""# Proof of `<p>`: the invariants, on what changed since the last proof

Daily, or as `schedule.proof` of the pipeline's file says (`none`: only when somebody asks); one run at a time.

| task | does |
|---|---|
| `prove` | checks the invariants on what changed since the last proof, once a week on everything; keeps the outcome |

It fails where an invariant is violated, or is behind while the job that would fix it fails. It writes to no table,
needs no Spark, and may run at any time, beside everything else.
Without Airflow: `twofold prove <p> --since-last`, or `twofold prove <p>`.
"""

from airflow.sdk import CronTriggerTimetable

from twofold_airflow import wiring
from twofold_airflow.table_operators import ProveOperator

for pipeline in wiring.pipelines():
    cron = pipeline.schedule.proof_cron
    schedule = CronTriggerTimetable(cron, timezone="UTC") if cron else None
    with wiring.pipeline_dag(pipeline, "proof", __doc__, schedule):
        ProveOperator(task_id="prove", pipeline=pipeline.name)
