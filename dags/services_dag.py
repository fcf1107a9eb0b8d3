"""# Services of `<p>`: producer and streaming job

Checks, every minute (`TWOFOLD_SERVICES_EVERY_S`) and one run at a time, that both run and make progress.

| task | does |
|---|---|
| `topic` | creates a missing topic of ours as declared; reports what differs (not to stop a service) |
| `start_producer`, `start_stream` | start the service; a running one is left alone, one stopped manually stays down |
| `producer_healthy`, `stream_healthy` | wait for several good looks in a row, without a worker; restart if stuck |

A service is healthy when it makes progress: the batch advances, or there is nothing to read; records are acknowledged,
or none is due. A replay that has sent everything is a healthy end. A service stopped manually is skipped.

A crashed service is started again at once by its supervisor, a stuck one by this DAG. Both count: after
`TWOFOLD_SERVICE_RESTARTS_PER_HOUR` (3) within an hour the service is left down and its task fails with its last log
lines. It stays down until it is started manually.

Manually: `action` start (clears the count), stop (stays down) or restart, for `service` both, producer or stream.
Without Airflow: `twofold services <p> --start`. A pipeline that declares no `replay` has no producer here.
"""

from datetime import timedelta

from airflow.sdk import BaseOperator, Param

from twofold.services.controller import services_of
from twofold.settings import Settings
from twofold_airflow import wiring
from twofold_airflow.service_operators import ACTIONS, BOTH, ServiceHealthSensor, ServiceOperator
from twofold_airflow.topic_operator import TopicOperator

EVERY = timedelta(seconds=Settings().services_every_s)

for pipeline in wiring.pipelines():
    names = services_of(pipeline)
    params = {
        "action": Param("start", enum=list(ACTIONS), description="start also clears the count of restarts"),
        "service": Param(BOTH, enum=[BOTH, *names], description="Which service"),
    }
    with wiring.pipeline_dag(pipeline, "services", __doc__, EVERY, params=params):
        before: BaseOperator = TopicOperator(
            task_id="topic", pipeline=pipeline.name, topic=pipeline.topic, action="{{ params.action }}"
        )
        for name in names:
            start = ServiceOperator(
                task_id=f"start_{name}",
                pipeline=pipeline.name,
                service=name,
                action="{{ params.action }}",
                chosen="{{ params.service }}",
            )
            healthy = ServiceHealthSensor(task_id=f"{name}_healthy", pipeline=pipeline.name, service=name)
            before >> start >> healthy
            before = start
