"""What processes send by StatsD, taken down in the exporter's place."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from twofold.settings import Settings


@contextmanager
def statsd_lines(settings: Settings) -> Iterator[Counter[str]]:
    """Counters sent meanwhile, summed up: `name,label=value` → sum. Whole once the block has ended."""
    sums: Counter[str] = Counter()
    stop = Event()
    with socket.socket(type=socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", settings.statsd_port))
        listener.settimeout(0.2)
        taker = Thread(target=_take, args=(listener, sums, stop))
        taker.start()
        try:
            yield sums
        finally:
            stop.set()
            taker.join()


def _take(listener: socket.socket, sums: Counter[str], stop: Event) -> None:
    while True:
        try:
            lines = listener.recv(65536).decode().splitlines()
        except TimeoutError:
            if stop.is_set():
                return
            continue
        for line in lines:
            name, _, value = line.rpartition(":")
            if value.endswith("|c"):
                sums[name] += int(value.removesuffix("|c"))
