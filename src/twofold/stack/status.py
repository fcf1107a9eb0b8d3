"""What of the stack runs, asked of supervisord, of the system, and of each service itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from twofold.settings import Settings
from twofold.stack import lifecycle, processes, supervisor
from twofold.stack.program import Program
from twofold.stack.state import read_state
from twofold.stack.supervisor import ProgramState

ORPHANED, STOPPED = "ORPHANED", "STOPPED"


@dataclass(frozen=True)
class ProgramStatus:
    """One program: `state` is supervisord's, or ORPHANED (runs, but nobody looks after it)."""

    name: str
    state: str
    pid: int | None
    uptime_s: float
    ports: tuple[int, ...]
    healthy: bool
    health: str
    """Why it is not healthy; empty when it is."""
    pss_bytes: int
    """Memory of the program and its children, shared pages counted once."""


@dataclass(frozen=True)
class StackStatus:
    """The whole stack; healthy when every program is."""

    home: str
    store: str | None
    healthy: bool
    pss_bytes: int
    airflow_url: str | None
    """Address of the pages; None without Airflow."""
    programs: tuple[ProgramStatus, ...]


def status(settings: Settings) -> StackStatus:
    """Look at every program of this home; a home where no stack was ever started has none."""
    known = read_state(settings.home)
    if known is None:
        return StackStatus(str(settings.home), None, healthy=False, pss_bytes=0, airflow_url=None, programs=())
    wanted = lifecycle.programs(settings, Path(known.postgres_folder)).chosen(known.airflow).all
    states = supervisor.states(settings) if supervisor.answers(settings) else {}
    orphans = {} if states else processes.ours(settings.home)
    with ThreadPoolExecutor(len(wanted)) as pool:
        rows = tuple(pool.map(lambda p: _row(settings, p, states.get(p.name), orphans.get(p.name, [])), wanted))
    healthy, memory = all(row.healthy for row in rows), sum(row.pss_bytes for row in rows)
    url = settings.airflow_url if known.airflow else None
    return StackStatus(str(settings.home), known.store, healthy, memory, url, rows)


def _row(
    settings: Settings, program: Program, seen: ProgramState | None, orphans: list[psutil.Process]
) -> ProgramStatus:
    if seen is not None:
        state, pid = seen.state, seen.pid or None
    else:
        state, pid = (ORPHANED, orphans[0].pid) if orphans else (STOPPED, None)
    fault = program.check() if pid else "not running"
    return ProgramStatus(
        name=program.name,
        state=state,
        pid=pid,
        uptime_s=round(processes.age_s(pid), 1) if pid else 0.0,
        ports=tuple(port.number(settings) for port in program.ports),
        healthy=not fault and state != ORPHANED,
        health=fault,
        pss_bytes=processes.pss_bytes(processes.family(pid)) if pid else 0,
    )
