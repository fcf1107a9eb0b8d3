"""# Union of `<p>`: both layers into `events`

Whenever a batch ingested something (the asset `<p>.batch_log`), and on time (`schedule.union`, by default hourly, for
what only the stream brings); one run at a time.

| task | does |
|---|---|
| `union` | merges everything past the boundary into `events`, one row per id, and recomputes the touched windows |
| `announce` | updates the asset `<p>.events` with how far `events` reaches now; skipped where it reaches no further |
| `compare` | compares both layers in the windows changed; sends the difference and the healed late events as metrics |
| `check_limits` | fails with the numbers where a row count or the difference is beyond the pipeline's `limits` |

A union needs neither an interval nor a message from the batch: the boundary in `events` says what is not unioned yet.
So any run or task may be repeated, and two at once cannot double a row: the second waits, and then unions what is left.
Where nothing is left, no JVM is started.

Without Airflow: `twofold union <p>`, then `twofold compare <p>`.
"""

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable

from twofold import tables
from twofold_airflow import wiring
from twofold_airflow.spark_job import SparkJobOperator
from twofold_airflow.table_operators import AnnounceOperator, CompareOperator, LimitsCheck

for pipeline in wiring.pipelines():
    on_time = CronTriggerTimetable(pipeline.schedule.union, timezone="UTC")
    schedule = AssetOrTimeSchedule(timetable=on_time, assets=[wiring.asset(pipeline.name, tables.BATCH_LOG)])
    with wiring.pipeline_dag(pipeline, "union", __doc__, schedule):
        union = SparkJobOperator(task_id="union", pipeline=pipeline.name, job="union")
        announce = AnnounceOperator(task_id="announce", pipeline=pipeline.name, table=tables.EVENTS)
        compare = CompareOperator(task_id="compare", pipeline=pipeline.name)
        check_limits = LimitsCheck(task_id="check_limits", pipeline=pipeline.name, retries=0)
        union >> [announce, compare]
        compare >> check_limits
