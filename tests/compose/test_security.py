"""Nobody gets at anything without a login, and nobody with a login at what is another's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from io import BytesIO
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, TopicAuthorizationFailedError
from minio import Minio
from minio.error import S3Error

from containers.secrets import ROLES
from tests.at_work import eventually
from tests.compose.conftest import Stack

ONE_SHOT = ("secrets", "store-setup", "airflow-init")
HOLDERS = {
    "zookeeper": "zookeeper",
    "kafka": "kafka",
    "object-store": "store",
    "postgres": "postgres",
    "producer": "producer",
    "streaming-job": "stream",
    "airflow-scheduler": "airflow",
    "airflow-api-server": "airflow",
    "airflow-dag-processor": "airflow",
    "airflow-triggerer": "airflow",
    "store-setup": "store",
    "airflow-init": "airflow",
}


def test_every_published_port_is_on_loopback(stack: Stack) -> None:
    hosts = {
        binding["HostIp"]
        for each in stack.containers().values()
        for bindings in (each["NetworkSettings"]["Ports"] or {}).values()
        for binding in bindings or []
    }
    assert hosts == {"127.0.0.1"}
    assert not any(stack.containers()["zookeeper"]["NetworkSettings"]["Ports"].values())
    assert "host" not in {each["HostConfig"]["NetworkMode"] for each in stack.containers().values()}


def test_every_container_is_confined(stack: Stack) -> None:
    for name, each in stack.containers().items():
        host = each["HostConfig"]
        assert each["Config"]["User"].split(":")[0] not in ("", "0", "root"), name
        assert host["ReadonlyRootfs"] and host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and not host["Privileged"], name
        assert not [m for m in each["Mounts"] if "docker.sock" in m["Source"]], name
        if name not in ONE_SHOT:
            said = stack.compose("exec", "-T", name, "bash", "-c", "id -un; touch /x", check=False)
            assert said.returncode != 0 and "Read-only" in said.stderr, name
            assert said.stdout.strip() in ("twofold", "nobody"), name


def test_every_container_mounts_its_own_secrets_only(stack: Stack) -> None:
    volume = f"{stack.project}_secrets"
    held = {
        name: [m["Name"] for m in each["Mounts"] if m.get("Name", "").startswith(volume)]
        for name, each in stack.containers().items()
        if name != "secrets"
    }
    assert held == {name: [f"{volume}-{HOLDERS[name]}"] if name in HOLDERS else [] for name in held}


@pytest.mark.parametrize("service", [name for name in HOLDERS if name not in ONE_SHOT])
def test_a_container_sees_its_own_secrets_only(stack: Stack, service: str) -> None:
    seen = stack.compose("exec", "-T", service, "ls", "/run/twofold").stdout.split()
    assert sorted(seen) == sorted(f"twofold_{name}" for name in ROLES[HOLDERS[service]])
    assert stack.compose("exec", "-T", service, "ls", "/secrets/all", check=False).stdout == ""


def kafka(stack: Stack, user: str) -> dict[str, Any]:
    place = {"bootstrap_servers": f"127.0.0.1:{stack.port('KAFKA')}", "bootstrap_timeout_ms": 30_000}
    if not user:
        return place
    return {
        **place,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": user,
        "sasl_plain_password": stack.secret(f"kafka_{user}_password"),
    }


def test_kafka_lets_in_nobody_without_a_login(stack: Stack) -> None:
    with pytest.raises(KafkaError):
        KafkaConsumer(**kafka(stack, ""))
    with pytest.raises(KafkaError):
        KafkaConsumer(**{**kafka(stack, "reader"), "sasl_plain_password": "wrong"})
    KafkaConsumer(**kafka(stack, "reader")).close()  # It answers: those were refusals.


@pytest.mark.parametrize("user", ["reader", "stream", "airflow"])
def test_only_the_producer_writes_to_a_topic(stack: Stack, user: str) -> None:
    producer = KafkaProducer(**kafka(stack, user), retries=0, enable_idempotence=False)
    with pytest.raises(TopicAuthorizationFailedError):
        producer.send("flights", b"not mine").get(timeout=120)
    producer.close()


def test_the_producer_reads_no_topic(stack: Stack) -> None:
    consumer = KafkaConsumer(**kafka(stack, "producer"), enable_auto_commit=False, auto_offset_reset="earliest")
    consumer.assign([TopicPartition("flights", 0)])
    with pytest.raises(TopicAuthorizationFailedError):
        eventually(lambda: consumer.poll(timeout_ms=1000))
    consumer.close(autocommit=False)


def test_zookeeper_lets_in_nobody_without_a_login(stack: Stack) -> None:
    script = 'java -cp "/opt/jars/kafka/*" org.apache.zookeeper.ZooKeeperMain -server zookeeper:2181 ls /brokers'
    said = stack.compose("exec", "-T", "airflow-scheduler", "bash", "-c", script, check=False)
    assert "client failed to authenticate" in said.stderr and said.returncode != 0, said


def store(stack: Stack, role: str) -> Minio:
    place = f"127.0.0.1:{stack.port('MINIO')}"
    if not role:
        return Minio(endpoint=place, secure=False)
    key = stack.secret(f"s3_{role}_secret_key")
    return Minio(endpoint=place, access_key=f"twofold-{role}", secret_key=key, secure=False)


def put(client: Minio, name: str) -> Callable[[], object]:
    return lambda: client.put_object(bucket_name="twofold", object_name=name, data=BytesIO(b"x"), length=1)


def test_the_store_gives_each_role_its_rights_and_no_more(stack: Stack) -> None:
    anonymous, reader, stream, airflow = (store(stack, role) for role in ("", "reader", "stream", "airflow"))
    put(airflow, ".test/allowed")()
    for forbidden in (
        lambda: list(anonymous.list_objects(bucket_name="twofold")),
        lambda: anonymous.get_object(bucket_name="twofold", object_name=".test/allowed"),
        put(anonymous, ".test/x"),
        put(reader, "checkpoints/x"),
        put(stream, "landing/flights/x.csv"),
        lambda: reader.remove_object(bucket_name="twofold", object_name="checkpoints/x"),
        lambda: airflow.make_bucket(bucket_name="another"),
    ):
        with pytest.raises(S3Error, match=r"AccessDenied|Access Denied"):
            forbidden()
    airflow.remove_object(bucket_name="twofold", object_name=".test/allowed")


@pytest.mark.parametrize("login", [("twofold", "twofold"), ("postgres", "postgres"), ("airflow", "airflow")])
def test_postgres_knows_no_default_password(stack: Stack, login: tuple[str, str]) -> None:
    user, password = login
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://{user}:{password}@127.0.0.1:{stack.port('POSTGRES')}/{user}", connect_timeout=60)


def test_airflow_tells_nothing_without_a_login(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.port('AIRFLOW')}"
    with pytest.raises(HTTPError, match="401"):
        urlopen(f"{url}/api/v2/dags", timeout=120)
    body = json.dumps({"username": "admin", "password": "admin"}).encode()
    with pytest.raises(HTTPError, match="401"):
        urlopen(Request(f"{url}/auth/token", data=body, headers={"Content-Type": "application/json"}), timeout=120)


@pytest.mark.parametrize("service", ["producer", "streaming-job"])
def test_a_supervisor_asks_for_its_password(stack: Stack, service: str) -> None:
    script = f"import urllib.request as u; u.urlopen('http://{service}:19100/RPC2', timeout=60)"
    said: subprocess.CompletedProcess[str] = stack.compose(
        "exec", "-T", "airflow-scheduler", "python", "-c", script, check=False
    )
    assert "HTTP Error 401" in said.stderr, said
