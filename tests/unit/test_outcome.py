"""What a job says of a failure inside the JVM, or of the machine: the innermost cause, on one line."""

from __future__ import annotations

import errno
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from py4j.java_gateway import GatewayParameters, JavaGateway
from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError
from pyspark.errors import PySparkRuntimeError

from spark_jobs import outcome, streaming_job
from spark_jobs.outcome import root_cause
from twofold import launch
from twofold.errors import DefinitionChanged, NotRunning, TwofoldError
from twofold.lake import Lake
from twofold.services.record import AWAY, CHANGED


class Speechless(Py4JJavaError):  # type: ignore[misc]
    """What a call of the JVM raised, whose words nobody can ask for any more."""

    def __init__(self) -> None:
        pass

    def __str__(self) -> str:
        raise Py4JNetworkError("Answer from Java side is empty")


HEAD = "An error occurred while calling o97.sql."
THROWN = ": org.apache.iceberg.exceptions.ValidationException: Deleted manifest m0.avro could not be found: in 7"
TRACE = "\tat org.apache.iceberg.BaseRewriteManifests.apply(BaseRewriteManifests.java:170)"
CAUSE = "Caused by: java.io.IOException: No space left: /data"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([HEAD, THROWN, TRACE], THROWN.removeprefix(": ")),
        ([HEAD, THROWN, TRACE, CAUSE, TRACE], "java.io.IOException: No space left: /data"),
        (["[TABLE_OR_VIEW_NOT_FOUND] The table `t` cannot be found.", "remedy: none"], None),
    ],
)
def test_the_innermost_cause_is_told_and_never_py4js_own_words(said: list[str], told: str | None) -> None:
    assert root_cause(ValueError("\n".join(said))) == (told or said[0])


def test_a_catalog_that_does_not_answer_the_jvm_is_no_failure_of_spark() -> None:
    away = [": org.apache.iceberg.jdbc.UncheckedSQLException: Failed to get table", TRACE]
    away += ["Caused by: org.postgresql.util.PSQLException: The connection attempt failed.", TRACE]
    told = outcome.of_jvm(ValueError("\n".join([HEAD, *away, "Caused by: java.net.SocketTimeoutException: timed out"])))
    assert isinstance(told, NotRunning)
    assert "SocketTimeoutException: timed out" in told.message
    full = outcome.of_jvm(ValueError("\n".join([HEAD, away[0], "Caused by: PSQLException: ERROR: disk full", TRACE])))
    assert full.message == "Spark failed: PSQLException: ERROR: disk full"


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (Py4JNetworkError("Answer from Java side is empty"), "the JVM of this job is gone"),
        (Speechless(), "the JVM of this job is gone"),
        (Py4JError("An error occurred while trying to connect to the Java server"), "the JVM of this job is gone"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "the JVM of this job is gone"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/m0.avro"), "No space left on device: '/data/m0.avro'"),
    ],
)
def test_a_jvm_that_was_killed_and_a_full_disk_are_told_in_a_sentence(
    failure: Exception, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> dict[str, Any]:
        raise failure

    with pytest.raises(SystemExit) as ended:
        outcome.run(work, str, as_json=False, outcome=tmp_path / "outcome.json")
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert told in said
    assert outcome.REPEAT in said
    assert told in json.loads((tmp_path / "outcome.json").read_text())["error"]


@pytest.mark.parametrize("failure", [None, OSError(errno.ENOSPC, "No space left on device", "/data/m0.avro")])
def test_an_outcome_that_cannot_be_written_is_told_in_a_sentence(
    failure: Exception | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> dict[str, Any]:
        if failure:
            raise failure
        return {}

    file = tmp_path / "a file, no folder" / "outcome.json"
    file.parent.touch()
    with pytest.raises(SystemExit) as ended:
        outcome.run(work, str, as_json=True, outcome=file)
    said = capsys.readouterr().err
    assert (ended.value.code, said.startswith("error: a file could not be read or written: ")) == (1, True)
    assert ("/data/m0.avro" if failure else str(file.parent)) in said


STARTLESS = PySparkRuntimeError(errorClass="JAVA_GATEWAY_EXITED", messageParameters={})


@pytest.mark.parametrize(
    ("failure", "code", "told"),
    [
        (STARTLESS, 1, "error: Spark failed: [JAVA_GATEWAY_EXITED] "),
        (Speechless(), 1, "error: the JVM of this job is gone"),
        (Py4JError("Answer from Java side is empty"), 1, "error: the JVM of this job is gone"),
        (OSError(errno.ENOSPC, "No space left on device", "/data"), 1, "No space left on device: '/data'"),
        (NotRunning("Kafka does not answer"), AWAY, "error: Kafka does not answer"),
        (DefinitionChanged("p", ["a field"]), CHANGED, "error: the definition of p changed"),
        (TwofoldError("no"), 1, "error: no"),
    ],
)
def test_a_streaming_job_that_fails_tells_it_in_a_sentence_and_how_it_is_to_be_restarted_by_its_code(
    failure: Exception, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def declared(_pipeline: str) -> Lake:
        raise failure

    monkeypatch.setattr(streaming_job, "declared", declared)
    with pytest.raises(SystemExit) as ended:
        streaming_job.main.main(["flights"])
    assert (ended.value.code, told in capsys.readouterr().err) == (code, True)


def test_the_jvm_logs_what_an_exception_says_without_its_stack() -> None:
    log4j = launch.jobs_folder() / "log4j2.properties"
    jars = f"{launch.spark_home()}/jars/*"
    java, configured = str(launch.find_java()), f"-Dlog4j2.configurationFile={log4j.as_uri()}"
    command = [java, "-cp", jars, configured, "py4j.GatewayServer"]
    server = subprocess.Popen(
        [*command, "--die-on-broken-pipe", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout
        gateway = JavaGateway(gateway_parameters=GatewayParameters(port=int(server.stdout.readline())))
        logger = gateway.jvm.org.apache.logging.log4j.LogManager.getLogger("a.b.Job")
        logger.error("it failed", gateway.jvm.java.lang.RuntimeException("no space"))
        gateway.shutdown()
        _, said = server.communicate(timeout=60)
    assert said.endswith(" ERROR Job: it failed: no space\n")
