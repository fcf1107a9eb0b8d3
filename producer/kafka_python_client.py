"""The producer's second Kafka client, by its public interface only: `TWOFOLD_PRODUCER_CLIENT=kafka-python`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, RecordListTooLargeError
from kafka.producer.future import RecordMetadata

from producer.delivery import LARGEST_REQUEST_BYTES, LINGER_MS, Ledger, Record
from twofold import kafka
from twofold.settings import Settings

CONNECT_MS, BLOCK_MS = 5_000, 1_000
NEVER_MS = 10**12
_NAMES = {"sasl.username": "sasl_plain_username", "sasl.password": "sasl_plain_password"}
"""Where this client's name is another one than librdkafka's with `_` for `.`."""


class KafkaPython:
    """Delivery reports come from the client's own thread."""

    def __init__(self, settings: Settings, topic: str, ledger: Ledger, stopped: Callable[[], bool]) -> None:
        self._settings, self._topic, self._ledger, self._stopped = settings, topic, ledger, stopped
        self._producer: KafkaProducer | None = None
        self._reporting = Lock()
        self._spent = False

    def send(self, partition: int, records: Sequence[Record]) -> None:
        """Send records, in order; returns before they are delivered."""
        for _, key, value in records:
            if not self._send(partition, key, value):
                return

    def poll(self, seconds: float) -> None:
        """Reports come by themselves."""
        time.sleep(min(seconds, 0.01))

    def close(self) -> None:
        """Stop at once."""
        if self._producer is not None:
            with suppress(KafkaTimeoutError):  # what it says where something is in flight
                self._producer.close(timeout=0)

    def _send(self, partition: int, key: bytes | None, value: bytes) -> bool:
        """Whether the client has taken a record, or refused it: it waits for a broker until the run is stopped."""
        while True:
            if self._spent:
                self.close()
                self._producer, self._spent = None, False
            if self._ledger.failure is not None or (self._producer is None and self._stopped()):
                return False
            try:
                producer = self._producer = self._producer or self._connected()
            except KafkaError:  # no broker yet
                continue
            try:
                sent = producer.send(self._topic, value, key, partition=partition)
            except KafkaTimeoutError:  # no broker any more, or no room yet
                if self._stopped():
                    return False
            except KafkaError as error:
                self._refused(partition, error)
                return True
            else:
                sent.add_callback(self._delivered)
                sent.add_errback(partial(self._refused, partition))
                return True

    def _delivered(self, metadata: RecordMetadata) -> None:
        # A report that has already come is given to the sending thread.
        with self._reporting:
            self._ledger.delivered(metadata.partition, 1, metadata.offset)

    def _refused(self, partition: int, error: BaseException) -> None:
        too_large = isinstance(error, (MessageSizeTooLargeError, RecordListTooLargeError))
        # An idempotent client stops for good after a refusal; this record was alone, so another one takes over.
        self._spent = self._spent or too_large
        with self._reporting:
            self._ledger.refused(partition, f"{type(error).__name__}: {error}", too_large)

    def _connected(self) -> KafkaProducer:
        access = kafka.librdkafka(self._settings).items()
        return KafkaProducer(
            **{_NAMES.get(name, name.replace(".", "_")): value for name, value in access},
            client_id="twofold",
            bootstrap_timeout_ms=CONNECT_MS,
            reconnect_backoff_max_ms=1000,
            enable_idempotence=True,
            acks="all",
            compression_type="lz4",
            linger_ms=LINGER_MS,
            batch_size=self._ledger.batch_bytes,
            max_request_size=LARGEST_REQUEST_BYTES,
            delivery_timeout_ms=NEVER_MS,
            max_block_ms=BLOCK_MS,
            metrics_enabled=False,
            allow_auto_create_topics=False,
        )
