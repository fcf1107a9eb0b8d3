"""Who may see what: Airflow's own user check, and its auth manager's word on every DAG of a pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import Depends, HTTPException, status

from twofold_airflow.wiring import KINDS


def reader(user: GetUserDep) -> BaseUser:
    """The user, who must be logged in (401) and have a role that may read some DAG and its runs (403)."""
    if not get_auth_manager().is_authorized_dag(method="GET", access_entity=DagAccessEntity.RUN, user=user):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Your role may not read DAGs. An administrator can change that.")
    return user


Reader = Annotated[BaseUser, Depends(reader)]


def dag_ids(pipeline: str) -> list[str]:
    """All DAGs of a pipeline."""
    return [f"{pipeline}_{kind}" for kind in KINDS]


def may_read(user: BaseUser, pipeline: str) -> bool:
    """Whether the user may read every DAG of the pipeline, and its runs: the page tells of all of them."""
    return all(
        get_auth_manager().is_authorized_dag(
            method="GET", access_entity=DagAccessEntity.RUN, details=DagDetails(id=dag_id), user=user
        )
        for dag_id in dag_ids(pipeline)
    )


def readable(user: BaseUser, pipelines: Iterable[str]) -> list[str]:
    """Those of the pipelines that the user may read."""
    return [pipeline for pipeline in pipelines if may_read(user, pipeline)]
