"""Nobody does anything but start it: flights land, are unioned, and the proof holds."""

from __future__ import annotations

import json
import re
from urllib.request import urlopen

import pytest
from minio import Minio

from tests.at_work import eventually
from tests.compose.conftest import Stack, patiently

NOT_MADE = re.compile("has no tables yet|is not there yet")


def test_flights_land_in_the_store_as_parquet(stack: Stack) -> None:
    store = Minio(
        endpoint=f"127.0.0.1:{stack.port('MINIO')}",
        access_key="twofold-reader",
        secret_key=stack.secret("s3_reader_secret_key"),
        secure=False,
    )

    def landed() -> bool:
        found = store.list_objects(bucket_name="twofold", prefix="tables/flights/stream_log/data/", recursive=True)
        return any(str(each.object_name).endswith(".parquet") for each in found)

    patiently(landed)


def test_the_union_runs_by_itself(stack: Stack) -> None:
    airflow = stack.airflow()

    def unioned() -> bool:
        runs = airflow.get("dags/flights_union/dagRuns", order_by="-run_after")["dag_runs"]
        return any(run["state"] == "success" for run in runs) and rows(stack, "events") > 0

    patiently(unioned)


def test_the_proof_holds(stack: Stack) -> None:
    report = stack.prove()
    assert report["ok"], report
    assert rows(stack, "stream_log") > 0


def test_the_proof_is_made_by_its_dag_too(stack: Stack) -> None:
    airflow = stack.airflow()
    run = airflow.trigger("flights_proof")
    patiently(lambda: airflow.run_state("flights_proof", run) in ("success", "failed"))
    assert airflow.run_state("flights_proof", run) == "success"


def test_the_services_are_well_by_their_dag(stack: Stack) -> None:
    airflow = stack.airflow()

    def well() -> bool:
        runs = airflow.get("dags/flights_services/dagRuns", order_by="-run_after")["dag_runs"]
        return any(run["state"] == "success" for run in runs)

    patiently(well)


def test_the_log_of_a_task_is_readable_in_airflow(stack: Stack) -> None:
    airflow = stack.airflow()
    runs = airflow.get("dags/flights_union/dagRuns", order_by="-run_after")["dag_runs"]
    done = next(run["dag_run_id"] for run in runs if run["state"] == "success")
    log = airflow.get(f"dags/flights_union/dagRuns/{done}/taskInstances/union/logs/1", full_content=True)
    assert "spark-submit" in json.dumps(log)


@pytest.mark.parametrize("job", ["statsd", "kafka", "minio", "prometheus", "alertmanager"])
def test_prometheus_reaches_its_targets(stack: Stack, job: str) -> None:
    def up() -> bool:
        with urlopen(f"http://127.0.0.1:{stack.port('PROMETHEUS')}/api/v1/targets", timeout=60) as answer:
            targets = json.load(answer)["data"]["activeTargets"]
        return {target["health"] for target in targets if target["labels"]["job"] == job} == {"up"}

    eventually(up, within_s=60.0, every_s=2.0)


def test_metrics_arrive_from_every_sender(stack: Stack) -> None:
    def arrived() -> bool:
        with urlopen(f"http://127.0.0.1:{stack.port('STATSD_EXPORTER')}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        return all(name in text for name in ("twofold_producer_", "twofold_stream_", "airflow_", "spark_driver_"))

    patiently(arrived)


def rows(stack: Stack, table: str) -> int:
    """How many a table has; 0 as long as nobody has made it."""
    done = stack.ask("query", "--format", "json", f"SELECT count(*) AS n FROM flights.{table}")
    if done.returncode and NOT_MADE.search(done.stderr):
        return 0
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout)[0]["n"])
