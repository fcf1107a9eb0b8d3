"""What processes send by StatsD, taken down in the exporter's place."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from twofold.settings import Settings


@contextmanager
def statsd_lines(settings: Settings) -> Iterator[list[str]]:
    """The lines sent meanwhile; the list is whole once the block has ended."""
    lines: list[str] = []
    stop = Event()
    with socket.socket(type=socket.SOCK_DGRAM) as listener:
        # Whoever takes lines down on a busy machine is late for some.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        listener.bind(("127.0.0.1", settings.statsd_port))
        listener.settimeout(0.2)
        taker = Thread(target=_take, args=(listener, lines, stop))
        taker.start()
        try:
            yield lines
        finally:
            stop.set()
            taker.join()


def counted(lines: Iterable[str]) -> Counter[str]:
    """The sum of each counter: `name,label=value` → sum."""
    sums: Counter[str] = Counter()
    for line in lines:
        name, _, value = line.rpartition(":")
        if value.endswith("|c"):
            sums[name] += int(value.removesuffix("|c"))
    return sums


def _take(listener: socket.socket, lines: list[str], stop: Event) -> None:
    while True:
        try:
            lines += listener.recv(65536).decode().splitlines()
        except TimeoutError:
            if stop.is_set():
                return
