"""What all DAG files and operators share: the pipelines, how a DAG of one is set up, what a failed task says, links.

    pipelines/*.yaml ─► pipelines() ─► pipeline_dag(…) for each, in every DAG file; in a task's process for its own
                └─ faulty ─► dags/definitions.py fails to import, with all faults; the sound pipelines keep their DAGs

A DAG file is parsed again when a pipeline file is added, changed or removed (`dag_folder`), without a restart.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from airflow.sdk import DAG, Asset, BaseOperator, BaseOperatorLink, Context, get_parsing_context
from airflow.sdk.types import TaskInstanceKey

from twofold.definition.load import load_pipeline, load_sound
from twofold.definition.model import Pipeline
from twofold.metrics import RUN_FAILED, Meter
from twofold.services.controller import runbook as address_of
from twofold.settings import Settings

if TYPE_CHECKING:
    from twofold.lake import Lake

OWNER = "twofold"
KINDS = ("services", "batch", "union", "maintenance", "proof", "replay")
SPARK_POOL = "spark"
"""One slot: two Spark jobs at once would share the memory of one machine."""

_RETRIES = 2
_RETRY: dict[str, Any] = {"retry_delay": timedelta(seconds=10), "retry_exponential_backoff": 2.0}
_RETRY_SOON: dict[str, Any] = {"retry_delay": timedelta(seconds=5), "retry_exponential_backoff": 0.0}
"""Of the services' DAG: it retries soon, as the next run comes in a minute."""
_PRIORITIES = {"services": 20, "union": 3}
"""Of tasks that wait for a slot. Airflow goes on by the run's date, so the runs of a backfill would come before all."""
_LONGEST = timedelta(hours=6)
_PAGES = {"Grafana": "grafana_url", "Status page": "status_page_url", "Spark UI": "spark_ui_url"}
"""Name of a task's link → the setting that has its address, in which `{pipeline}` becomes the pipeline's name."""


def pipelines() -> list[Pipeline]:
    """Every sound definition, by name, or the one whose DAG this process is for: that of a task needs no other.

    `dags/definitions.py` reports what is wrong with the others.
    """
    sound = load_sound(Settings().pipelines)[0].values()
    wanted = get_parsing_context().dag_id
    return [one for one in sound if wanted is None or wanted in {dag_id(one.name, kind) for kind in KINDS}]


def pipeline_dag(
    pipeline: Pipeline,
    kind: str,
    manual: str | None,
    schedule: Any,  # noqa: ANN401
    **arguments: Any,  # noqa: ANN401
) -> DAG:
    """The DAG `<pipeline>_<kind>`, one run at a time; `manual`: the DAG file's docstring, `<p>` in it the pipeline."""
    return DAG(
        dag_id(pipeline.name, kind),
        schedule=schedule,
        catchup=False,
        max_active_runs=1,
        tags={OWNER, kind},
        doc_md=(manual or "").replace("<p>", pipeline.name),
        # All tasks are safe to repeat, so all are retried.
        default_args={
            "owner": OWNER,
            "retries": _RETRIES,
            **(_RETRY_SOON if kind == "services" else _RETRY),
            "priority_weight": _PRIORITIES.get(kind, 1),
            "execution_timeout": _LONGEST,
            "on_failure_callback": partial(count_failure, pipeline.name, kind),
        },
        **arguments,
    )


def dag_id(pipeline: str, kind: str) -> str:
    """Name of a pipeline's DAG; `kind` is one of KINDS."""
    return f"{pipeline}_{kind}"


def count_failure(pipeline: str, kind: str, context: Context) -> None:
    """Count a task that failed for good, its retries used up."""
    Meter(Settings(), pipeline).count(RUN_FAILED, 1, kind=kind)


def asset(pipeline: str, table: str) -> Asset:
    """What `<p>_batch` updates when it ingested something (`batch_log`), and `<p>_union` when the boundary moved."""
    return Asset(name=f"{pipeline}.{table}", uri=f"twofold://{pipeline}/{table}", group=OWNER)


def failed(what: str, remedy: str, runbook: str) -> str:
    """The text of a task's failure; `runbook` is the name of a page under docs/runbooks, without its ending."""
    lines = (what, f"remedy: {remedy}" if remedy else "", f"runbook: {address_of(Settings(), runbook)}")
    return "\n".join(line for line in lines if line)


@attrs.define()
class PageLink(BaseOperatorLink):
    """A link from a task to a page that shows its pipeline."""

    name: str
    address: str

    @property
    def xcom_key(self) -> str:
        """Where the address is kept for the UI."""
        return f"_link_{self.name.replace(' ', '_').lower()}"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address."""
        return self.address


def pages(pipeline: str) -> tuple[PageLink, ...]:
    """The links of a pipeline's tasks: to those pages whose address is in the settings."""
    settings = Settings()
    addresses = {title: str(getattr(settings, name)) for title, name in _PAGES.items()}
    return tuple(
        PageLink(title, address.replace("{pipeline}", pipeline)) for title, address in addresses.items() if address
    )


class PipelineOperator(BaseOperator):
    """An operator of one pipeline: its tasks link to the pages that show it, and may open its tables."""

    def __init__(self, *, pipeline: str, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.pipeline = pipeline

    @property
    def operator_extra_links(self) -> tuple[PageLink, ...]:  # type: ignore[override]
        """Pages that show the pipeline."""
        return pages(self.pipeline)

    def lake(self) -> Lake:
        """Its tables and its inbox, as declared now."""
        # Imported where it is used: it takes a second, too long for parsing a DAG file.
        from twofold.lake import Lake

        settings = Settings()
        return Lake(settings, load_pipeline(settings, self.pipeline))
