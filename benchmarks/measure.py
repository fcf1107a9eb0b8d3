"""Run one command and count what its whole process tree used.

    measured(command) ─► python -m benchmarks.measure REPORT command… ─► wall and CPU-seconds

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.failures import CommandFailed

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Usage:
    """What one command took."""

    wall_s: float
    cpu_s: float
    output: str


def measured(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Usage:
    """Run to the end; raises CommandFailed with the command's own words if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        report, said = Path(folder) / "report.json", Path(folder) / "output"
        launcher = [sys.executable, "-m", "benchmarks.measure", str(report), *command]
        with said.open("wb") as output:
            child = subprocess.Popen(
                launcher,
                env={**os.environ, **(environment or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code = _wait(child)
        text = said.read_text(errors="replace")
        if code:
            raise CommandFailed(f"{' '.join(command)} exits {code}:\n{text[-4000:]}")
        return Usage(**json.loads(report.read_text()), output=text)


def _wait(child: subprocess.Popen[bytes]) -> int:
    try:
        return child.wait()
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise


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
    report.write_text(json.dumps({"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime}))
    return code


def _wait_for_orphans() -> None:
    try:
        while True:
            os.wait()
    except ChildProcessError:
        return


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
