"""Running the shards of a run: one in this process, several in processes of their own that report over a pipe.

A worker whose parent is gone ends within a quarter second: its next report finds the pipe closed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Event
from typing import Any

from producer import kafka_client
from producer.progress import Progress
from producer.request import Request
from producer.shard import Shard, Task
from producer.sources import Source, open_source
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError

Take = Callable[[int, Progress], None]
Problem = tuple[str, str]
"""(message, remedy) of an error that ended a worker."""
PARENT_GONE = 3


def run(tasks: Sequence[Task], pipeline: Pipeline, request: Request, source: Source, stop: Event, take: Take) -> None:
    """Run all tasks to their end; raise the error of the first worker that failed on its source."""
    if len(tasks) == 1:
        Shard(tasks[0], source, stop, lambda progress: take(0, progress)).run()
        return
    context = multiprocessing.get_context("spawn")
    pipes: dict[Connection, int] = {}
    processes = []
    for task in tasks:
        mine, theirs = context.Pipe()
        process = context.Process(target=_work, args=(task, pipeline, request, dict(source.memory), theirs))
        process.start()
        theirs.close()
        pipes[mine] = task.worker
        processes.append(process)
    problems = _listen(pipes, stop, take, lambda: _terminate(processes))
    for process in processes:
        process.join()
    if problems:
        raise TwofoldError(*problems[0])


def _terminate(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()


def _listen(pipes: dict[Connection, int], stop: Event, take: Take, end: Callable[[], None]) -> list[Problem]:
    """Take reports until every pipe is closed; pass a stop on once."""
    problems: list[Problem] = []
    finished: set[int] = set()
    passed_on = False
    while pipes:
        if (stop.is_set() or problems) and not passed_on:
            passed_on = True
            end()
        for pipe in wait(list(pipes), timeout=0.2):
            assert isinstance(pipe, Connection)
            try:
                report = pipe.recv()
            except EOFError:
                worker = pipes.pop(pipe)
                if worker not in finished:
                    problems.append((f"producer worker {worker} was killed", "run the same command to go on"))
                continue
            if isinstance(report, Progress):
                finished |= {pipes[pipe]} if report.done else set()
                take(pipes[pipe], report)
            else:
                problems.append(report)
    return problems


def _work(task: Task, pipeline: Pipeline, request: Request, memory: Mapping[str, Any], pipe: Connection) -> None:
    """A worker process. Ctrl-C reaches the whole group: only the parent heeds it, and sends SIGTERM."""
    stop = Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    kafka_client.quiet()

    def report(progress: Progress) -> None:
        try:
            pipe.send(progress)
        except BrokenPipeError:
            os._exit(PARENT_GONE)

    try:
        source = open_source(pipeline, request, stop.is_set, task.worker)
        source.remember(memory)
        Shard(task, source, stop, report).run()
    except TwofoldError as error:
        pipe.send((error.message, error.remedy))
