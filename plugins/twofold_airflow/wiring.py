"""What all DAG files share: which pipelines there are, and how a DAG of one of them is set up.

    pipelines/*.yaml ─► pipelines() ─► pipeline_dag(…) for each, in every DAG file
                └─ faulty ─► dags/definitions.py fails to import, with all faults; the sound pipelines keep their DAGs

A DAG file is parsed anew every few seconds, so a pipeline file that is added, changed or taken away while all runs
shows without a restart.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

from airflow.sdk import DAG, Asset, Context

from twofold import tables
from twofold.definition.load import load_all, load_sound
from twofold.definition.model import Pipeline
from twofold.metrics import RUN_FAILED, Meter
from twofold.settings import Settings

OWNER = "twofold"
KINDS = ("services", "batch", "union", "maintenance", "replay")
TAGS = frozenset({OWNER, *KINDS})
"""Every tag that a DAG may have."""
SPARK_POOL = "spark"
"""One slot: two Spark jobs at once would share the memory of one machine."""
PLACEHOLDER = "<p>"
"""Stands for the pipeline's name in a manual."""

_RETRIES = 2
_RETRY: dict[str, Any] = {"retry_delay": timedelta(seconds=10), "retry_exponential_backoff": 2.0}
_RETRY_SOON: dict[str, Any] = {"retry_delay": timedelta(seconds=5), "retry_exponential_backoff": 0.0}
"""Of the services' DAG: what is not there now is asked for again soon, as the next run comes in a minute."""
_LONGEST = timedelta(hours=6)


def pipelines() -> list[Pipeline]:
    """Every sound definition, by name. What is wrong with the others is told by `dags/definitions.py`."""
    return list(load_sound(Settings().pipelines)[0].values())


def require_sound() -> None:
    """Raise DefinitionError with every fault of every pipeline file, if there is any."""
    load_all(Settings().pipelines)


def pipeline_dag(
    pipeline: Pipeline,
    kind: str,
    manual: str | None,
    schedule: Any,  # noqa: ANN401
    **arguments: Any,  # noqa: ANN401
) -> DAG:
    """The DAG `<pipeline>_<kind>`, one run at a time; `manual` is the DAG file's docstring, shown in the UI."""
    return DAG(
        dag_id(pipeline, kind),
        schedule=schedule,
        catchup=False,
        max_active_runs=1,
        tags={OWNER, kind},
        doc_md=(manual or "").replace(PLACEHOLDER, pipeline.name),
        default_args=default_args(pipeline, kind),
        **arguments,
    )


def dag_id(pipeline: Pipeline, kind: str) -> str:
    """Name of a pipeline's DAG; `kind` is one of KINDS."""
    if kind not in KINDS:
        raise ValueError(f"{kind} is none of {', '.join(KINDS)}")
    return f"{pipeline.name}_{kind}"


def default_args(pipeline: Pipeline, kind: str) -> dict[str, Any]:
    """What every task of a DAG starts from. All tasks are safe to repeat, so all are tried again."""
    return {
        "owner": OWNER,
        "retries": _RETRIES,
        **(_RETRY_SOON if kind == "services" else _RETRY),
        "execution_timeout": _LONGEST,
        "on_failure_callback": partial(count_failure, pipeline.name, kind),
    }


def count_failure(pipeline: str, kind: str, context: Context) -> None:
    """Tell StatsD that a task failed for good, its retries used up."""
    Meter(Settings(), pipeline).count(RUN_FAILED, 1, kind=kind)


def batch_log(pipeline: Pipeline) -> Asset:
    """What `<p>_batch` updates when it landed something."""
    return _asset(pipeline, tables.BATCH_LOG)


def events(pipeline: Pipeline) -> Asset:
    """What `<p>_union` updates when the boundary moved."""
    return _asset(pipeline, tables.EVENTS)


def _asset(pipeline: Pipeline, table: str) -> Asset:
    return Asset(name=f"{pipeline.name}.{table}", uri=f"twofold://{pipeline.name}/{table}", group="twofold")
