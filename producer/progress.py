"""How far a run is: what each worker reports, and all of them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from twofold.journal import Delivered


@dataclass(frozen=True)
class Progress:
    """One worker's state; all counts are of this run."""

    position: int = 0
    """Every record before it that is this worker's is acknowledged, or set aside as too large."""
    sent: int = 0
    acked: int = 0
    too_large: int = 0
    sent_bytes: int = 0
    refused: tuple[tuple[int, int], ...] = ()
    """The first records set aside as too large: (position, bytes)."""
    partitions: Mapping[int, Delivered] = field(default_factory=dict)
    last_ack_at: float | None = None
    """Unix seconds."""
    ack_s: float | None = None
    """How long the batch acknowledged last had taken from its first record on."""
    waiting_s: float = 0.0
    """So long records have been in flight with no acknowledgement."""
    exhausted: bool = False
    """The source is sent to its end, all of it acknowledged."""
    failure: str | None = None
    done: bool = False

    @property
    def in_flight(self) -> int:
        """Records handed to the client and not yet acknowledged."""
        return max(0, self.sent - self.acked - self.too_large)


def combined(workers: Iterable[Progress]) -> Progress:
    """All workers as one."""
    all_of = list(workers)
    return Progress(
        position=min(worker.position for worker in all_of),
        sent=sum(worker.sent for worker in all_of),
        acked=sum(worker.acked for worker in all_of),
        too_large=sum(worker.too_large for worker in all_of),
        sent_bytes=sum(worker.sent_bytes for worker in all_of),
        refused=tuple(sorted(refused for worker in all_of for refused in worker.refused)),
        partitions=merged(worker.partitions for worker in all_of),
        last_ack_at=max((worker.last_ack_at for worker in all_of if worker.last_ack_at), default=None),
        ack_s=max((worker.ack_s for worker in all_of if worker.ack_s is not None), default=None),
        waiting_s=max(worker.waiting_s for worker in all_of),
        exhausted=all(worker.exhausted for worker in all_of),
        failure=next((worker.failure for worker in all_of if worker.failure), None),
        done=all(worker.done for worker in all_of),
    )


def merged(parts: Iterable[Mapping[int, Delivered]]) -> dict[int, Delivered]:
    """What each partition has acknowledged, over all parts.

    >>> merged([{0: Delivered(2, 5)}, {0: Delivered(1, 3), 1: Delivered(1, 0)}])
    {0: Delivered(acked=3, highest=5), 1: Delivered(acked=1, highest=0)}
    """
    total: dict[int, Delivered] = {}
    for part in parts:
        for partition, delivered in part.items():
            total[partition] = total.get(partition, Delivered()).plus(delivered)
    return total
