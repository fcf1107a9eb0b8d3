"""Status of the stack, from supervisord, the process table and each server's and service's own health check."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from twofold.definition.names import SERVICES
from twofold.errors import TwofoldError, UsageError
from twofold.health import ask
from twofold.services import removed
from twofold.services.controller import Controller, as_look
from twofold.services.verdict import HealthLimits, judge
from twofold.settings import Settings
from twofold.stack import lifecycle, processes, programs, supervisor
from twofold.stack.programs import Program
from twofold.stack.supervisor import ProgramState
from twofold.text import counted

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
    note: str = ""
    """What else is to be known of a healthy service."""


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
    services: tuple[ProgramStatus, ...] = ()
    """Producers and streaming jobs; their health is not counted in `healthy`, as they may be stopped at will."""
    monitoring_urls: dict[str, str] = field(default_factory=dict)
    """Name → address of the monitoring's pages; empty without monitoring."""


def status(settings: Settings) -> StackStatus:
    """Look at every program of this home; a home where no stack was ever started has none."""
    known = lifecycle.read_state(settings.home)
    if known is None:
        return StackStatus(str(settings.home), None, healthy=False, pss_bytes=0, airflow_url=None, programs=())
    wanted = lifecycle.chosen(lifecycle.possible(settings, known), known)
    states = supervisor.states(settings)
    orphans = {} if states else processes.ours(settings.home)
    with ThreadPoolExecutor(len(wanted)) as pool:
        rows = tuple(pool.map(lambda p: _row(settings, p, states.get(p.name), orphans.get(p.name, [])), wanted))
        stacks = {row.name for row in rows}
        declared = [s for s in states.values() if s.name not in stacks and s.name.rpartition("-")[2] in SERVICES]
        left = _removed(settings, declared)
        services = tuple(pool.map(lambda seen: _service(settings, seen, seen.name in left), declared))
    healthy, memory = all(row.healthy for row in rows), sum(row.pss_bytes for row in (*rows, *services))
    url = settings.airflow_url if known.airflow else None
    watching = programs.pages(settings) if known.monitoring else {}
    return StackStatus(str(settings.home), known.store, healthy, memory, url, rows, services, watching)


def _removed(settings: Settings, services: Sequence[ProgramState]) -> set[str]:
    """Those that run although no file declares their pipeline; none where there is no folder of such files."""
    pipelines = {seen.name: seen.name.rpartition("-")[0] for seen in services if seen.pid}
    with suppress(UsageError):
        gone = removed.gone(settings, pipelines.values())
        return {name for name, pipeline in pipelines.items() if pipeline in gone}
    return set()


def _service(settings: Settings, seen: ProgramState, left: bool) -> ProgramStatus:
    """One look at a service; `twofold services` says more."""
    pipeline, _, service = seen.name.rpartition("-")
    fine, fault, note = _judged(settings, pipeline, service)
    if left:
        fine = False
        fault = f"no file in {settings.pipelines} declares its pipeline: `twofold services {pipeline} --stop`"
    return ProgramStatus(
        name=seen.name,
        state=seen.state,
        pid=seen.pid or None,
        uptime_s=float(seen.uptime_s),
        ports=(),
        healthy=fine,
        health=fault,
        pss_bytes=processes.pss_bytes(processes.family(seen.pid)) if seen.pid else 0,
        note=note,
    )


def _judged(settings: Settings, pipeline: str, service: str) -> tuple[bool, str, str]:
    """Whether a service is fine, why it is not healthy, and a note."""
    try:
        state = Controller(settings).state(pipeline, service)
    except TwofoldError as error:  # the settings may name another supervisor for services than the stack's own
        return False, error.message, ""
    answer = ask(state.health)
    found = judge(service, [as_look(state, answer)], HealthLimits(good_samples=1))
    lost = answer.get("lost")
    note = f"{counted(lost, 'offset')} lost: `twofold accept-loss {pipeline}`" if lost else ""
    return found.fine, "" if found.kind == "healthy" else found.reason, note


def _row(
    settings: Settings, program: Program, seen: ProgramState | None, orphans: list[psutil.Process]
) -> ProgramStatus:
    if seen is not None:
        state, pid = seen.state, seen.pid or None
    else:
        state, pid = (ORPHANED, orphans[0].pid) if orphans else (STOPPED, None)
    family = processes.family(pid) if pid else []
    fault = program.check() if pid else "not running"
    if fault and (known := lifecycle.logged(settings, program.name)[1]):
        fault = f"{fault}: {known.message}; {known.remedy}"
    return ProgramStatus(
        name=program.name,
        state=state,
        pid=pid,
        uptime_s=round(time.time() - family[0].create_time(), 1) if family else 0.0,
        ports=tuple(port.number(settings) for port in program.ports),
        healthy=not fault and state != ORPHANED,
        health=fault,
        pss_bytes=processes.pss_bytes(family),
    )
