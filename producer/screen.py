"""What a person sees on stderr: a live line on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from producer.progress import Progress

LINE_EVERY_S = 10.0


class Screen:
    """Shows how far a run is. `total` is the number of records of the source, None if unknown."""

    def __init__(self, console: Console, topic: str, broker: str, start: int, total: int | None) -> None:
        self._console, self._topic, self._broker = console, topic, broker
        self._said_at = time.monotonic()
        self._waiting = False
        self._bar = _bar(console) if console.is_terminal else None
        self._task: TaskID | None = None
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(topic, total=total, completed=start, note="")
        self._total = total

    def say(self, text: str) -> None:
        """One line, above the live one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, state: str, progress: Progress, rate: float) -> None:
        """The present state; waiting for the broker is said as soon as it begins and ends."""
        waiting = state == "waiting_for_broker"
        if waiting != self._waiting:
            self._waiting = waiting
            self.say(self._waiting_text(progress) if waiting else f"Kafka at {self._broker} answers again")
        if self._bar is not None and self._task is not None:
            note = f"{rate:,.0f}/s, {progress.acked:,} acknowledged"
            self._bar.update(self._task, completed=progress.position, note=note)
        elif time.monotonic() - self._said_at >= LINE_EVERY_S:
            self._said_at = time.monotonic()
            self.say(self._waiting_text(progress) if waiting else self._sending_text(progress, rate))

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def _sending_text(self, progress: Progress, rate: float) -> str:
        of = f" of {self._total:,}" if self._total else ""
        return f"{self._topic}: at record {progress.position:,}{of}, {rate:,.0f}/s, {progress.acked:,} acknowledged"

    def _waiting_text(self, progress: Progress) -> str:
        return (
            f"waiting for Kafka at {self._broker} ({progress.waiting_s:.0f} s); "
            f"{progress.in_flight:,} records are kept, nothing is lost"
        )


def _bar(console: Console) -> Bar:
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,} {task.fields[note]}")
    return Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)
