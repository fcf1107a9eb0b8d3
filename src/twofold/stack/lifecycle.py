"""Bring the embedded stack up.

    lock ─► end orphans ─► ports free? ─► prepare ─► supervisord ─► all servers at once
                  storage healthy ─► databases, bucket ─► Airflow set up and started ─► all healthy

`twofold.stack.stopping` takes it down.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from twofold.errors import TwofoldError, UsageError
from twofold.settings import Settings
from twofold.stack import airflow, kafka, minio, monitoring, postgres, processes, state, supervisor
from twofold.stack.ports import SUPERVISOR, require_free
from twofold.stack.program import Program
from twofold.stack.stopping import Say, end_leftovers, stop
from twofold.stack.supervisor import FATAL, RUNNING, STARTING

HEALTHY_WITHIN_S = 300.0
TRIES = 3
"""Runs of one program that `up` watches fail; a broker needs two where its predecessor was killed."""


class StackFailed(TwofoldError):
    """A program of the stack does not get healthy."""


class Programs(NamedTuple):
    """The programs of a stack, each group in start order."""

    storage: tuple[Program, ...]
    brokers: tuple[Program, ...]
    airflow: tuple[Program, ...]
    monitoring: tuple[Program, ...]

    @property
    def all(self) -> tuple[Program, ...]:
        """Every program, in start order."""
        return self.storage + self.brokers + self.airflow + self.monitoring

    def chosen(self, known: state.State) -> Programs:
        """These, without what is not wanted."""
        wanted = self if known.airflow else self._replace(airflow=())
        return wanted if known.monitoring else wanted._replace(monitoring=())


def programs(settings: Settings, postgres_folder: Path) -> Programs:
    """Everything that this stack can run."""
    bucket = (minio.program(settings),) if settings.store == "minio" else ()
    return Programs(
        storage=(postgres.program(settings, postgres_folder), *bucket),
        brokers=(kafka.zookeeper_program(settings), kafka.kafka_program(settings)),
        airflow=airflow.programs(settings),
        monitoring=monitoring.programs(settings),
    )


def up(
    settings: Settings, store: str | None, with_airflow: bool, with_monitoring: bool | None, say: Say
) -> tuple[Settings, state.State]:
    """Bring the stack up, or what is dead of it, and wait until all is healthy; returns what is in force.

    Without Airflow or monitoring, one that runs is stopped; `with_monitoring` None leaves it as it is.
    """
    with state.lock(settings.home, lambda: say("another command changes this stack: waiting for it")):
        settings, known = _settle(Settings(home=settings.home), store, with_airflow, with_monitoring)
        if known.monitoring:
            monitoring.prepare(settings)
        possible = programs(settings, Path(known.postgres_folder))
        if supervisor.answers(settings):
            _repair(settings, known, possible, say)
        else:
            _start(settings, known, possible, say)
    return settings, known


def _settle(
    settings: Settings, store: str | None, with_airflow: bool, with_monitoring: bool | None
) -> tuple[Settings, state.State]:
    """Fix the store and the passwords of this home on its first start; refuse another store later."""
    known = state.read_state(settings.home)
    chosen = store or settings.store
    if known is None:
        known = state.State(chosen, str(postgres.choose_folder(settings.home)))
    elif known.store != chosen:
        raise UsageError(
            f"{settings.home} holds a stack with --store {known.store}: its tables cannot move to {chosen}",
            f"run `twofold up --store {known.store}`, or choose another folder with --home or TWOFOLD_HOME",
        )
    elif not Path(known.postgres_folder).is_dir():
        raise StackFailed(
            f"PostgreSQL's folder {known.postgres_folder} is gone, and the catalog of all tables with it",
            f"bring it back from a copy, or delete {settings.home} to start from nothing",
        )
    settings = state.with_secrets(settings.model_copy(update={"store": chosen}))
    _refuse_moved_ports(settings)
    state.write_private(settings.home / "stack.env", state.environment_file(settings))
    watched = known.monitoring if with_monitoring is None else with_monitoring
    known = replace(known, airflow=with_airflow, monitoring=watched)
    known.write(settings.home)
    return settings, known


def _refuse_moved_ports(settings: Settings) -> None:
    """A running stack keeps its ports: what already talks to it would be lost."""
    path = settings.home / "stack.env"
    if not path.exists() or not processes.ours(settings.home).get(processes.SUPERVISOR):
        return
    before, after = set(path.read_text().splitlines()), set(state.environment_file(settings).splitlines())
    moved = sorted(line.partition("=")[0] for line in after - before)
    if moved:
        raise UsageError(f"the stack runs with another {', '.join(moved)}", "run `twofold down` first")


def _start(settings: Settings, known: state.State, possible: Programs, say: Say) -> None:
    """Start from nothing; on failure nothing is left running."""
    end_leftovers(settings.home, say)
    wanted = possible.chosen(known)
    require_free([SUPERVISOR, *(port for program in wanted.all for port in program.ports)], settings)
    say(f"starting {', '.join(program.name for program in wanted.all)}")
    postgres.prepare(settings, Path(known.postgres_folder))
    kafka.prepare(settings)
    if settings.store == "minio":
        minio.prepare(settings)
    supervisor.start(settings, possible.all)
    try:
        _start_programs(settings, wanted, say)
    except BaseException:
        stop(settings, say)
        raise


def _repair(settings: Settings, known: state.State, possible: Programs, say: Say) -> None:
    """Under a live supervisord, start what does not run, and stop what is not wanted."""
    states, wanted = supervisor.states(settings), possible.chosen(known)
    alive = {name for name, seen in states.items() if seen.state in (RUNNING, STARTING)}
    unwanted = [program.name for program in possible.all if program not in wanted.all and program.name in alive]
    if unwanted:
        say(f"stopping {', '.join(unwanted)}")
        supervisor.stop_programs(settings, reversed(unwanted))
    dead = [program.name for program in wanted.all if program.name not in alive]
    if dead:
        say(f"starting {', '.join(dead)}")
    elif not any(program.check() for program in wanted.all):
        say("the stack is up already")
        return _finish(settings)
    return _start_programs(settings, wanted, say)


def _start_programs(settings: Settings, wanted: Programs, say: Say) -> None:
    """Start all; Airflow when its database is there, and the database and bucket of the jobs that it will start."""
    since = time.monotonic()
    _ask_for(settings, wanted.monitoring + wanted.storage + wanted.brokers)
    _wait_healthy(settings, wanted.storage, say, since)
    _finish(settings)
    if wanted.airflow:
        airflow.prepare(settings, say)
        _ask_for(settings, wanted.airflow)
    _wait_healthy(settings, wanted.brokers + wanted.airflow + wanted.monitoring, say, since)


def _ask_for(settings: Settings, programs: Iterable[Program]) -> None:
    for program in programs:
        supervisor.start_program(settings, program.name)


def _finish(settings: Settings) -> None:
    """Make the database and the bucket, where they are not there yet."""
    postgres.finish(settings)
    if settings.store == "minio":
        minio.finish(settings)
    else:
        (settings.home / "bucket").mkdir(exist_ok=True)


def _wait_healthy(settings: Settings, wanted: tuple[Program, ...], say: Say, since: float) -> None:
    pending = list(wanted)
    runs: dict[str, set[int]] = {program.name: set() for program in wanted}
    while pending:
        states = supervisor.states(settings)
        for program in tuple(pending):
            fault, waited_s = program.check(), time.monotonic() - since
            runs[program.name].add(states[program.name].pid)
            if not fault:
                pending.remove(program)
                say(f"{program.name} is healthy after {waited_s:.1f} s")
            elif states[program.name].state == FATAL or len(runs[program.name] - {0}) > TRIES:
                raise _failure(settings, program.name, f"{program.name} ends again and again")
            elif waited_s > HEALTHY_WITHIN_S:
                raise _failure(settings, program.name, f"{program.name} is not healthy after {waited_s:.0f} s: {fault}")
        time.sleep(0.1 if pending else 0)


def _failure(settings: Settings, name: str, what: str) -> StackFailed:
    path = supervisor.log_file(settings, name)
    lines = path.read_text(errors="replace").splitlines()[-15:] if path.exists() else []
    return StackFailed("\n  ".join([what, "last lines of its log:", *lines]), f"see {path}")
