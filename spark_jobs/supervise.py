"""Keep the queries going: what is away for a while is waited for; what is wrong for good ends the job.

run:   all queries at once, until told to stop
drain: the landing query until it has what was in Kafka, then the views until they have what was landed
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from pyspark.errors import PySparkException
from pyspark.sql.streaming.query import StreamingQuery

from spark_jobs.outcome import is_clock_behind
from spark_jobs.progress import Progress
from spark_jobs.stream_log import Trigger
from twofold.errors import ClockBehind, NotRunning, TwofoldError

_POLL_S = 0.25
_LONGEST_PAUSE_S = 15.0
FAILURES_IN_A_ROW = 12
"""About two minutes of pauses for something that is away; then the job ends, and its supervisor decides."""
UNKNOWN_FAILURES_IN_A_ROW = 3
_AWAY = (
    "Connection refused",
    "Connection reset",
    "TimeoutException",
    "timed out",
    "DisconnectException",
    "could not be established",
    "SdkClientException",
    "AWSClientIOException",
    "S3Exception",
    "PSQLException",
    "NotRunning",
    "UncheckedSQLException",
)
"""Signs that a broker, store or catalog is away, not that the work is wrong."""
_DATA_LOSS = ("KAFKA_DATA_LOSS", "data may have been lost", "Some data may have been lost")
_CAUSE = re.compile(r"(Caused by: |: )?[\w.]+(Exception|Error)\b")


@dataclass
class Service:
    """One query that is started again after a failure."""

    name: str
    begin: Callable[[Trigger], StreamingQuery]
    cause: Callable[[], TwofoldError | None]
    """The error of ours that made the last batch fail, if it was one."""
    pause: timedelta
    """Between the starts of two batches, but for a drain."""
    query: StreamingQuery | None = None
    failures: int = 0
    batches_at_failure: int = -1
    retry_at: float = 0.0

    def step(self, trigger: Trigger, progress: Progress) -> bool:
        """Start, or look after, the query; True once it ended well. Raises what no new start can mend."""
        if self.query is None:
            if time.monotonic() >= self.retry_at:
                self._start(trigger, progress)
            return False
        if self.query.isActive:
            return False
        progress.wait_for_end(str(self.query.runId))
        failure = self.query.exception()
        if failure is None:
            return True
        self._failed(str(failure), progress)
        return False

    def _start(self, trigger: Trigger, progress: Progress) -> None:
        try:
            self.query = self.begin(trigger)
        except PySparkException as error:
            self._failed(str(error), progress)

    def _failed(self, text: str, progress: Progress) -> None:
        if cause := self.cause():
            raise cause
        if any(sign in text for sign in _DATA_LOSS):
            raise data_loss(self.name, text)
        progressed = self.query.lastProgress if self.query else None
        batch = progressed["batchId"] if progressed else -1
        self.failures = self.failures + 1 if batch == self.batches_at_failure else 1
        self.batches_at_failure = batch
        if is_clock_behind(text):
            # Waited for, as what is away: the clock gets there by itself.
            text = ClockBehind(f"a table that query {self.name} writes").message
            away = True
        else:
            away = any(sign in text for sign in _AWAY)
        if self.failures > (FAILURES_IN_A_ROW if away else UNKNOWN_FAILURES_IN_A_ROW):
            error = NotRunning if away else TwofoldError
            raise error(f"query {self.name} failed {self.failures} times in a row: {_shortened(text)}")
        pause_s = min(2.0 ** (self.failures - 1), _LONGEST_PAUSE_S)
        self.query, self.retry_at = None, time.monotonic() + pause_s
        progress.retrying(self.name, f"query {self.name} failed, next try in {pause_s:.0f} s: {_shortened(text)}")

    def stop(self, progress: Progress) -> None:
        """End the query; a batch cut short is done again by the next start."""
        if self.query is not None and self.query.isActive:
            self.query.stop()
            progress.wait_for_end(str(self.query.runId))


def data_loss(name: str, text: str) -> TwofoldError:
    """Kafka no longer has records that were never landed: going on would hide the loss."""
    return TwofoldError(
        f"query {name}: Kafka no longer has records that were not landed yet (retention, or the topic was made anew): "
        + _shortened(text),
        "the landed part stays readable; declare the stream under a new pipeline name to go on with what Kafka has, "
        "and raise the topic's retention.ms",
    )


def run(services: Iterable[Service], progress: Progress, stop: threading.Event) -> None:
    """All services at once, until `stop`."""
    watched = list(services)
    while not stop.wait(_POLL_S):
        for service in watched:
            service.step({"processingTime": f"{service.pause // timedelta(milliseconds=1)} milliseconds"}, progress)
        if all(service.query is not None for service in watched):
            progress.say("running")
    for service in watched:
        service.stop(progress)


def drain(services: Iterable[Service], progress: Progress, stop: threading.Event) -> None:
    """One service after the other, each until it has taken all that was there when it started."""
    progress.say("draining")
    for service in services:
        while not stop.is_set() and not service.step({"availableNow": True}, progress):
            stop.wait(_POLL_S)
        service.stop(progress)


def _shortened(text: str) -> str:
    """The sentences of a failure without its stack: first what failed, then each cause."""
    lines = [line.strip() for line in text.splitlines()]
    causes = [line for line in lines if _CAUSE.match(line)]
    return " | ".join(dict.fromkeys(line[:300] for line in [*lines[:1], *causes[-3:]]))
