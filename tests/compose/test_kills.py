"""Every server and job is killed once: its container comes back by itself, records go on landing, the proof holds.

And what no restart brings back: the drills of docs/operations.md, by the commands that are for containers.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from tests.compose.conftest import Stack, patiently
from tests.compose.test_flow import rows

DELETE_ALL = """
from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import AdminClient
login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "admin"}
password = open("/run/twofold/twofold_kafka_admin_password").read().strip()
client = AdminClient({"bootstrap.servers": "kafka:9093", "sasl.password": password, **login})
for done in client.delete_records([TopicPartition("flights", part, OFFSET_END) for part in range(4)]).values():
    done.result(30)
"""
"""Deletes every record of the topic, in the broker's container, where alone its administrator can log in."""


@pytest.mark.parametrize("service", ["kafka", "streaming-job", "object-store", "postgres", "spark-worker"])
def test_nothing_is_lost_by_a_kill(stack: Stack, service: str) -> None:
    before = rows(stack, "stream_log")
    stack.crash(service)
    patiently(lambda: grown(stack, before))
    patiently(lambda: proved(stack))


def test_what_kafka_deleted_is_let_go_and_a_lost_catalog_is_made_again(stack: Stack) -> None:
    run(stack, "services", action="stop", service="stream")

    def lost() -> Any:  # noqa: ANN401
        stack.compose("exec", "-T", "kafka", "python", "-c", DELETE_ALL)
        return json.loads(stack.ask("accept-loss", "flights", "--json").stdout)["lost"]

    patiently(lost)
    run(stack, "replay", what="accept-loss", dry_run=False)
    told = json.loads(stack.ask("accept-loss", "flights", "--json").stdout)
    assert (told["lost"], bool(told["before"])) == ([], True)

    # A union that finds no table of the name makes an empty one.
    airflow = stack.airflow()
    airflow.pause("flights_union")
    patiently(lambda: not airflow.get("dags/flights_union/dagRuns", state="running")["total_entries"])
    place = f"twofold:{quote(stack.secret('postgres_password'), safe='')}@127.0.0.1:{stack.port('POSTGRES')}/twofold"
    with psycopg.connect(f"postgresql://{place}") as connection:
        connection.execute("DELETE FROM iceberg_tables WHERE table_namespace = 'flights' AND table_name = 'batch_log'")
    assert "flights.batch_log: to be named" in stack.ask("recatalog").stdout
    # It waits for a batch that runs just now.
    patiently(lambda: stack.ask("recatalog", "--yes").returncode == 0)
    assert "flights.batch_log: there already" in stack.ask("recatalog").stdout
    airflow.unpause("flights_union")

    landed = rows(stack, "stream_log")
    run(stack, "services", action="start", service="stream")
    patiently(lambda: grown(stack, landed))
    patiently(lambda: proved(stack))


def grown(stack: Stack, before: int) -> bool:
    """Whether more records have landed; what cannot be asked, while a service comes back, is asked again."""
    with suppress(AssertionError):
        return rows(stack, "stream_log") > before
    return False


def run(stack: Stack, kind: str, **form: object) -> None:
    """Run a DAG of the flights by its form, to a good end."""
    airflow, dag = stack.airflow(), f"flights_{kind}"
    asked = airflow.trigger(dag, **form)
    patiently(lambda: airflow.run_state(dag, asked) in ("success", "failed"))
    assert airflow.run_state(dag, asked) == "success"


def proved(stack: Stack) -> bool:
    """Nothing is violated, and what was acknowledged is landed; views follow as long as records come."""
    report = stack.prove()
    assert report["ok"], report
    return not any(each["behind"] for each in report["invariants"] if each["id"] in ("I1", "I2"))
