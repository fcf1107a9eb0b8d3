"""# Batch of `<p>`: landed files into `batch_log`

On the schedule that the pipeline's file declares (`schedule.batch`), or manually; one run at a time.

| task | does |
|---|---|
| `land` | ingests all new files of the inbox into `batch_log`, each exactly once |
| `announce` | updates the asset `<p>.batch_log` with what was ingested since its last event; skipped if nothing |
| `check_files` | fails while the inbox holds a file that could not be read; the others are ingested nevertheless |

The interval only labels the run: which files are new is decided by their content. So a missed run needs no backfill,
and any run or task may be repeated. A second run at once waits for the first. A run that finds nothing new starts no
JVM, and so costs seconds; a backfill of many runs lets services and unions of all pipelines go first.

Without Airflow: `twofold land <p> FILE…`, then `twofold batch <p>`. See `docs/inbox.md`.
"""

from airflow.sdk import CronDataIntervalTimetable

from twofold import tables
from twofold_airflow import wiring
from twofold_airflow.spark_job import SparkJobOperator
from twofold_airflow.table_operators import AnnounceOperator, LandedFilesCheck

for pipeline in wiring.pipelines():
    cron = pipeline.schedule.batch
    with wiring.pipeline_dag(pipeline, "batch", __doc__, CronDataIntervalTimetable(cron, "UTC") if cron else None):
        land = SparkJobOperator(task_id="land", pipeline=pipeline.name, job="batch", arguments=["--wait", "600"])
        announce = AnnounceOperator(task_id="announce", pipeline=pipeline.name, table=tables.BATCH_LOG)
        check_files = LandedFilesCheck(task_id="check_files", pipeline=pipeline.name, retries=0)
        land >> [announce, check_files]
