"""Where records come from: a file as it is, tabular data through a query, or the definition alone."""

from __future__ import annotations

from collections.abc import Callable

from producer.request import Request
from producer.sources.chunk import Chunk, Source
from producer.sources.generated import Generated, now_utc
from producer.sources.lines import Lines, Stdin
from producer.sources.table import Table
from twofold.definition.model import Pipeline

__all__ = ["Chunk", "Source", "open_source"]


def open_source(pipeline: Pipeline, request: Request, stopped: Callable[[], bool], worker: int = 0) -> Source:
    """The source that a request names, as this worker of its `workers` has it; raise UsageError if it is not there."""
    if request.generate is not None:
        return Generated(pipeline, request, now_utc(), worker)
    if request.from_stdin:
        return Stdin(pipeline.event.id, pipeline.event.max_bytes, stopped)
    if request.path is not None:
        return Lines(request.path, pipeline.event.id, pipeline.event.max_bytes)
    return Table(pipeline, request)
