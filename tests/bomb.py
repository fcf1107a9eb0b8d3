"""Bytes at which a process ends that judges records. Apart from its test, as that process imports this module too."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


class Bomb(bytes):
    """Bytes that end the process to which they are sent."""

    def __reduce__(self) -> tuple[Callable[[int, int], bytes], tuple[int, int]]:
        return _end, (os.getpid(), 0)


def _end(sender: int, _zero: int) -> bytes:
    if os.getpid() != sender:
        os.kill(os.getpid(), signal.SIGKILL)
    return b""
