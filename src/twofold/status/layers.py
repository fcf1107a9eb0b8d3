"""Both layers on one time line of event time, and what the union has yet to take. Pure: tables come in as data.

batch layer   |#########################|              what `live_<view>` shows up to `sealed_through`,
speed layer             |---------------|#########|    and past it; the rows up to `boundary` are in `events` as well
                                  sealed ↑    ↑ boundary

`unified_<view>` is exact over all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from twofold import table_state
from twofold.status.model import Layers, Log
from twofold.table_state import Boundary, History


def layers(
    pipeline: str, logs: Mapping[str, Log], histories: Mapping[str, History], views: Iterable[History]
) -> Layers:
    """What both layers cover. `logs` and `histories` by table; `views`: the batch layer's.

    Raises BoundaryError where a table carries another pipeline's state.
    """
    edge = table_state.boundary(histories["events"], pipeline)
    stream = table_state.landed(histories["stream_log"], pipeline)
    batch = table_state.landed(histories["batch_log"], pipeline)
    return Layers(
        batch_log=logs["batch_log"],
        stream_log=logs["stream_log"],
        events=logs["events"],
        boundary=edge.max_event_time,
        sealed_through=sealed_through(views),
        stream_past_boundary=past(stream.offsets, edge.offsets),
        landings_past_boundary=max(0, batch.landing - edge.landing),
        united_at=united_at(histories["events"]),
    )


def sealed_through(views: Iterable[History]) -> datetime | None:
    """Up to here the windows of every view are final; None where some view has none."""
    folded = [table_state.folded(history) for history in views]
    sealed = [state.sealed_through for state in folded if state and state.sealed_through]
    return min(sealed) if folded and len(sealed) == len(folded) else None


def past(ends: Mapping[int, int], covered: Mapping[int, int]) -> int:
    """Records up to `ends` and at or past `covered`, both exclusive offsets per partition.

    >>> past({0: 10, 1: 5}, {0: 7})
    8
    """
    return sum(max(0, end - covered.get(partition, 0)) for partition, end in ends.items())


def united_at(events: History) -> datetime | None:
    """When the last union committed."""
    snapshot = events.nearest(Boundary.KEY)
    return snapshot.at if snapshot else None
