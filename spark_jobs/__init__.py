"""Spark programs of both layers, and their parts.

| programs: `python -m spark_jobs.<name>`, or `twofold <command>` | parts |
|---|---|
| `streaming_job` Kafka to log and views | `stream_log`, `stream_views` the queries, `stream_progress` their report |
| `batch_job` inbox to log | `batch_log` each file exactly once |
| `union_job` logs to events and batch views; `rebuild_job` rebuilds both | `union`, `days` rows by day in DuckDB |
| `reland_job` records judged again, in place of their rows | `reland` new files, and what they change |
| `erase_job` ids gone for good | `erase` from the tables, `erase_files` from the inbox, `rewriting` each |
| `maintenance_job` small files, old snapshots, orphans | `maintenance` its steps |

All stand on `spark_session` (session, lock, fence), `checkpoints` and `outcome` (how a program ends). In Spark's Python
workers run `tasks` (the contract; `rejected_ids` of erased records), `view_aggregation` (a view's expressions) and
`days`; `python_workers` starts them. `unified_views` gives the views of `twofold query` to other Spark programs;
`class_archive` belongs to `make setup`.
"""
