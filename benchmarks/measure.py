"""What a command uses, its whole process tree, in the end or while it runs; and the figures.

    measured(command) ─► python -m benchmarks.measure REPORT command… ─► wall and CPU-seconds
    serving(command)  ─► the same, and CPU-seconds so far whenever asked; ended by SIGTERM
    Figure            ─► one line of a report, beside its floor

The process in between adopts what the command leaves behind (a Spark driver does not wait for its JVM), waits for it
too, and so counts it. Linux only.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

TWOFOLD = (sys.executable, "-m", "twofold.cli")
"""How the command is started here."""
_PR_SET_CHILD_SUBREAPER = 36
_STOPPING_S = 60.0
_POLL_S = 0.5


@dataclass(frozen=True)
class Figure:
    """What was measured; what does not apply is None. `bound`: the floor (or ceiling) that the ratio has to keep."""

    what: str
    wall_s: float | None = None
    cpu_s: float | None = None
    events_per_s: float | None = None
    events_per_cpu_s: float | None = None
    ratio: float | None = None
    bound: str = ""
    note: str = ""

    @classmethod
    def of(cls, what: str, events: float, wall_s: float, cpu_s: float, **others: Any) -> Figure:  # noqa: ANN401
        """With both rates, where there were events; `others` are its other fields."""
        rates = (events / wall_s, events / cpu_s) if events else (None, None)
        return cls(what, wall_s, cpu_s, *rates, **others)


class BenchFailure(Exception):
    """A part could not be measured, or its engines do not agree. The figures of the parts before it still count."""


def until(condition: Callable[[], bool], what: str, give_up_s: float) -> None:
    """Wait for a condition; raise BenchFailure where it does not come true in time."""
    give_up = time.monotonic() + give_up_s
    while not condition():
        if time.monotonic() > give_up:
            raise BenchFailure(f"{what} did not come within {give_up_s:.0f} s")
        time.sleep(_POLL_S)


@dataclass(frozen=True)
class Usage:
    """What one command took."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    """Of memory, by the largest of its processes."""
    output: str


def measured(
    command: Sequence[str], environment: Mapping[str, str] | None = None, good: Collection[int] = (0,)
) -> Usage:
    """Run to the end; raises BenchFailure with the command's own words if its exit code is not a `good` one."""
    with tempfile.TemporaryDirectory() as folder:
        report, said = Path(folder) / "report.json", Path(folder) / "output"
        launcher = _launched(command, environment, report, said)
        try:
            code = launcher.wait()
        finally:
            # A session of its own: Ctrl-C and SIGTERM end this process alone.
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
                launcher.wait()
        text = said.read_text(errors="replace")
        if code not in good:
            raise BenchFailure(f"{' '.join(command)} exits {code}:\n{text[-4000:]}")
        return Usage(**json.loads(report.read_text()), output=text)


class Serving:
    """A command that runs until it is stopped."""

    def __init__(self, launcher: subprocess.Popen[bytes], command: Sequence[str], said: Path) -> None:
        self._launcher, self._command, self._said = launcher, command, said

    def cpu_s(self) -> float:
        """What the whole tree has used so far; BenchFailure where it has ended.

        A process counts its own time and that of the children it has waited for, and the launcher waits for orphans:
        so nothing is lost when a process ends, and nothing is counted twice.
        """
        self.check()
        root, used = psutil.Process(self._launcher.pid), 0.0
        for process in (root, *root.children(recursive=True)):
            # One that ends meanwhile is in its parent's count the next time.
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used += times.user + times.system + times.children_user + times.children_system
        return used

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._launcher.poll() is not None

    def check(self) -> None:
        """BenchFailure, with the command's own words, where it has ended."""
        if self.ended:
            text = self._said.read_text(errors="replace")
            raise BenchFailure(f"{' '.join(self._command)} ended by itself:\n{text[-4000:]}")

    def until(self, condition: Callable[[], bool], what: str, give_up_s: float) -> None:
        """Wait for a condition; BenchFailure where the command ends first."""

        def met() -> bool:
            self.check()
            return condition()

        until(met, what, give_up_s)

    def stop(self) -> None:
        """SIGTERM to the command, and wait for it and for what it started; all of it is killed after a minute."""
        for child in psutil.Process(self._launcher.pid).children():
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGTERM)
        try:
            self._launcher.wait(_STOPPING_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._launcher.pid, signal.SIGKILL)
            self._launcher.wait()


@contextmanager
def serving(command: Sequence[str], said: Path, environment: Mapping[str, str] | None = None) -> Iterator[Serving]:
    """Run a command for as long as the block runs; its output goes to `said`."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = _launched(command, environment, Path(folder) / "report.json", said)
        running = Serving(launcher, command, said)
        try:
            yield running
        finally:
            if not running.ended:
                running.stop()


def _launched(
    command: Sequence[str], environment: Mapping[str, str] | None, report: Path, said: Path
) -> subprocess.Popen[bytes]:
    with said.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.measure", str(report), *command],
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def main(report: Path, command: Sequence[str]) -> int:
    """Run the command as its adoptive parent, write the report, and give the command's exit code."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this kernel cannot adopt orphaned processes")
    began = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    wall_s = time.monotonic() - began
    _wait_for_orphans()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    facts = {"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss << 10}
    report.write_text(json.dumps(facts))
    return code


def _wait_for_orphans() -> None:
    try:
        while True:
            os.wait()
    except ChildProcessError:
        return


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
