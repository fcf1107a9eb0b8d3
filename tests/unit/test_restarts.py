"""A query that failed is started again: for which failures, and how often."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from spark_jobs.spark_session import Job
from spark_jobs.stream_log import LogWriter
from spark_jobs.stream_progress import StreamProgress
from spark_jobs.streaming_job import RestartedQuery
from tests import running
from tests.conftest import write_definition
from tests.lake import LocalLake
from twofold import schemas
from twofold.catalog import LakeCatalog
from twofold.definition.model import Pipeline
from twofold.errors import BoundaryError, DefinitionChanged, NotRunning, StoreAway, TwofoldError
from twofold.metrics import Meter
from twofold.schema_registry import RegistryAway

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

REFUSED = "When reading information for key 'k' in bucket 'b': AWS Error NETWORK_CONNECTION during HeadObject operation"
BEGINS = "When reading information for key 'k' in bucket 'b': AWS Error UNKNOWN (HTTP status 503) during HeadObject"


class OfJava(Py4JJavaError):  # type: ignore[misc]
    """What a call of the JVM raises, without a JVM to ask for its words."""

    def __init__(self) -> None:
        pass

    def __str__(self) -> str:
        return "An error occurred while calling o71.exists.\n: java.net.ConnectException: Connection refused"


AWAY: list[Exception] = [
    StoreAway("http://127.0.0.1:9000"),
    NotRunning("PostgreSQL (the catalog) does not answer at 127.0.0.1:5432"),
    RegistryAway("the schema registry does not answer"),
    OSError(f"{REFUSED}: curlCode: 7, Could not connect to server"),
    OSError(f"{BEGINS} operation: No response body."),
    OfJava(),
    PySparkException("software.amazon.awssdk.core.exception.SdkClientException: Unable to execute HTTP request"),
]
UNKNOWN = OSError(28, "No space left on device")


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return write_definition(tmp_path)


@pytest.fixture
def progress(tmp_path: Path, pipeline: Pipeline) -> StreamProgress:
    settings = running.fresh_settings(tmp_path, tmp_path)
    return StreamProgress(pipeline, Meter(settings, pipeline.name), tmp_path)


def test_a_stream_that_does_not_go_on_does_not_know_how_far_behind_it_is(
    progress: StreamProgress, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last batch left nothing behind, and what has come since only Kafka knows."""
    progress.say("running")
    source = {"endOffset": None, "latestOffset": None}
    report = {"name": f"{pipeline.name}_log", "batchId": 3, "numInputRows": 1, "sources": [source]}
    report["timestamp"] = "2026-01-01T00:00:00Z"
    progress.onQueryProgress(SimpleNamespace(progress=SimpleNamespace(json=json.dumps(report))))  # type: ignore[arg-type]
    assert (progress.snapshot()["offsets_behind"], progress.snapshot()["healthy"]) == (0, True)
    progress.retrying("log", "oops")
    assert (progress.snapshot()["offsets_behind"], progress.snapshot()["batch"]) == (None, 3)
    progress.say("running")
    assert progress.snapshot()["offsets_behind"] == 0
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert (progress.snapshot()["offsets_behind"], progress.snapshot()["healthy"]) == (None, False)


def ended(progress: StreamProgress, begin: Callable[[], Any]) -> tuple[int, Exception]:
    """How often a query is begun, without its pauses, and what ends the job."""
    begun = 0

    def start(trigger: object) -> Any:  # noqa: ANN401
        nonlocal begun
        begun += 1
        return begin()

    query = RestartedQuery("by_kind", start, lambda: None, timedelta(0), progress)
    while True:
        query.retry_at = 0.0
        try:
            query.step({})
        except (TwofoldError, OSError, PySparkException, Py4JJavaError) as error:
            return begun, error


def raising(*errors: Exception) -> Callable[[], Any]:
    """Each once, the last one for ever."""
    left = [*errors]

    def begin() -> None:
        raise left.pop(0) if len(left) > 1 else left[0]

    return begin


def failed(progress: StreamProgress, text: str) -> Any:  # noqa: ANN401
    """A query that has failed before its first report."""
    query: Any = SimpleNamespace(isActive=False, runId="r", exception=lambda: text, lastProgress=None)
    progress.onQueryTerminated(query)
    return query


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
def test_a_service_that_is_away_is_waited_for(progress: StreamProgress, error: Exception) -> None:
    """Where a query starts, and in its batches, of which Spark passes on the text."""
    trace = f"[FOREACH_BATCH_USER_FUNCTION_ERROR] Reason: Traceback\n{type(error).__module__}.{type(error).__name__}"
    for begin in (raising(error), lambda: failed(progress, f"{trace}: {error}\n")):
        begun, last = ended(progress, begin)
        assert begun == 13
        assert isinstance(last, NotRunning)
        assert any(line in last.message for line in str(error).splitlines())


def test_what_nobody_knows_is_tried_less_often(progress: StreamProgress) -> None:
    for begin in (raising(UNKNOWN), lambda: failed(progress, f"OSError: {UNKNOWN}")):
        begun, last = ended(progress, begin)
        assert (begun, type(last)) == (4, TwofoldError)
        assert "failed 4 times in a row: OSError: [Errno 28] No space left on device" in str(last)


def test_a_service_that_was_away_does_not_count_with_what_nobody_knows(progress: StreamProgress) -> None:
    begun, last = ended(progress, raising(*[AWAY[0]] * 10, *[UNKNOWN] * 3, AWAY[0]))
    assert (begun, type(last)) == (10 + 3 + 3, NotRunning)
    begun, last = ended(progress, raising(*[AWAY[0]] * 5, UNKNOWN))
    assert (begun, type(last)) == (5 + 4, TwofoldError)


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), DefinitionChanged("p", ["a field"])])
def test_what_no_start_mends_ends_the_job(progress: StreamProgress, error: Exception) -> None:
    """So it is where the JVM is gone, to which Python connects."""
    assert ended(progress, raising(error)) == (1, error)


def test_of_a_batch_of_the_log_only_what_lasts_ends_the_job(
    tmp_path: Path, lake: LakeCatalog, pipeline: Pipeline
) -> None:
    class Refused(LogWriter):
        def _write(self, records: object, batch_id: int) -> None:
            raise what

    schemas.ensure_tables(lake, pipeline)
    job: Any = Job(None, LocalLake(running.fresh_settings(tmp_path, tmp_path), pipeline, lake))  # type: ignore[arg-type]
    writer, nothing = Refused(job, str, lambda *_: None), cast("DataFrame", None)
    for what, kept in ((StoreAway("http://s3"), False), (BoundaryError("a hole"), True)):
        with pytest.raises(type(what)):
            writer.write(nothing, 0)
        assert (writer.error is what) == kept
