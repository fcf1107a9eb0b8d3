"""# Replay of `<p>`: landed files, corrected records or all that is still there go through again

Manually only, with a form; a dry run by default, which only reports what would be done (in the log and XCom of `plan`).

| field | means |
|---|---|
| `what` | `landings`: landed files; `mended`: files of corrected records; `reland`: all, again; `accept-loss`: below |
| `first`, `last` | landings: the range by number, both included; without `last` up to the last one |
| `files` | mended: one path a line, on the machine that runs the tasks |
| `since` | reland: only what arrived since this moment, or this long ago; empty: everything |
| `dry_run` | on: change nothing |

A field that is set though it is not for what is asked for is refused, and so is `mended` without a file.

| task | does |
|---|---|
| `plan` | reports what is replayed and what is left out; unless dry, puts copies into `replay/<run>/` of the inbox |
| `land` | the batch job: ingests each copy once; its rows win over the old ones of the same id |
| `announce` | updates the asset `<p>.batch_log`, so the union follows |
| `reland` | reland only: reports what would change; unless dry, replaces rows, and makes `events` and views again |

After a changed definition: `reland` judges what Kafka and the inbox still hold again, and replaces its rows; or
`landings`, so that what was rejected or filtered is judged again. A range is refused whose ids were corrected by rows
that do not go with it: of later landings, or of files that are left out; also where rows of it were rejected, as they
have no id by which a correction would be found. No copy is put while files wait in the inbox that were not ingested
yet, as one landing would take both: run `<p>_batch` first. For corrected records: `twofold rejects <p> --to
FILE`, fix the file, replay it.

`accept-loss` replays nothing: it accepts as lost what Kafka deleted before it landed, so that the stream can continue.

Without Airflow: `twofold replay <p> --landings A..B` or `--mended FILE`, with `--go`, then `twofold batch <p>`; or
`twofold reland <p>` or `twofold accept-loss <p>`, with `--yes`.
"""

from airflow.sdk import Param

from twofold import tables
from twofold_airflow import wiring
from twofold_airflow.spark_job import SparkJobOperator
from twofold_airflow.table_operators import LANDINGS, LOSS, MENDED, RELAND, AnnounceOperator, ReplayOperator

FORM = {
    "what": Param(LANDINGS, enum=[LANDINGS, MENDED, RELAND, LOSS], description="What goes through again"),
    "first": Param(1, type="integer", minimum=1, description="landings: the first"),
    "last": Param(None, type=["null", "integer"], minimum=1, description="landings: the last; empty: all since"),
    "files": Param("", type="string", format="multiline", description="mended: one path a line"),
    "since": Param("", type="string", description="reland: a moment, or how long ago; empty: everything"),
    "dry_run": Param(True, type="boolean", description="Only report what would be done"),
}

for pipeline in wiring.pipelines():
    with wiring.pipeline_dag(pipeline, "replay", __doc__, None, params=FORM):
        plan = ReplayOperator(task_id="plan", pipeline=pipeline.name)
        land = SparkJobOperator(
            task_id="land", pipeline=pipeline.name, job="batch", arguments=["--wait", "600"], only=[LANDINGS, MENDED]
        )
        announce = AnnounceOperator(task_id="announce", pipeline=pipeline.name, table=tables.BATCH_LOG)
        how = ["--since", "{{ params.since }}", "{{ '--dry-run' if params.dry_run else '--yes' }}"]
        reland = SparkJobOperator(task_id=RELAND, pipeline=pipeline.name, job="reland", arguments=how, only=[RELAND])
        plan >> [land, reland]
        land >> announce
