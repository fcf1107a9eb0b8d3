"""Prints what Airflow makes of the DAG files, as JSON: run in a process of its own, with Airflow's environment.

Not in the tests' process: importing Airflow makes a folder for itself and changes how the whole process logs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.sdk.definitions._internal.dag_parsing_context import _airflow_parsing_context_manager
from airflow.serialization.serialized_objects import DagSerialization


def fact(dag: DAG) -> dict[str, Any]:
    """What the rules look at."""
    DagSerialization.to_dict(dag)
    return {
        "tags": sorted(dag.tags),
        "owners": sorted({task.owner for task in dag.tasks}),
        "doc": dag.doc_md,
        "file": dag.fileloc,
        "max_active_runs": dag.max_active_runs,
        "catchup": dag.catchup,
        "schedule": type(dag.timetable).__name__,
        "tasks": {
            task.task_id: {
                "retries": task.retries,
                "on_failure": bool(task.on_failure_callback),
                "pool": task.pool,
                # As Airflow sums it up: what follows a task counts, too.
                "weight": task.priority_weight
                + sum(dag.task_dict[name].priority_weight for name in task.get_flat_relative_ids(upstream=False)),
                "links": sorted(link.name for link in task.operator_extra_links),
                "runbook": getattr(task, "runbook", None),
                "only": getattr(task, "only", None),
            }
            for task in dag.tasks
        },
    }


def dags_for(name: str) -> list[str]:
    """The DAGs that a process makes which Airflow has started for a task of this one."""
    with _airflow_parsing_context_manager(dag_id=name):
        return sorted(DagBag(sys.argv[1]).dags)


if __name__ == "__main__":
    bag = DagBag(sys.argv[1])
    facts = {
        "dags": {name: fact(dag) for name, dag in bag.dags.items()},
        "errors": bag.import_errors,
        "alone": {name: dags_for(name) for name in bag.dags},
        "modules": sorted({module.partition(".")[0] for module in sys.modules}),
    }
    sys.stdout.write(f"FACTS {json.dumps(facts)}\n")
