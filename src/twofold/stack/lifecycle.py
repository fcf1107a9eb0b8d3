"""Start, stop and look at the embedded stack.

up:   lock ─► end orphans ─► ports free? ─► prepare ─► supervisord ─► start all at once ─► healthy ─► finish
down: lock ─► supervisord stops programs in descending start order ─► end what is left
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from twofold.errors import TwofoldError, UsageError
from twofold.settings import Settings
from twofold.stack import kafka, minio, postgres, processes, state, supervisor
from twofold.stack.ports import SUPERVISOR, require_free
from twofold.stack.program import Program
from twofold.stack.supervisor import FATAL, RUNNING, STARTING

Say = Callable[[str], None]
"""Where progress goes, a line at a time."""

HEALTHY_WITHIN_S = 90.0
STOPPED_WITHIN_S = 150.0
TRIES = 3
"""Runs of one program that `up` watches fail; a broker needs two where its predecessor was killed."""


class StackFailed(TwofoldError):
    """A program of the stack does not get healthy."""


def programs(settings: Settings, postgres_folder: Path) -> tuple[Program, ...]:
    """Everything that this stack runs, in start order."""
    always = (
        postgres.program(settings, postgres_folder),
        kafka.zookeeper_program(settings),
        kafka.kafka_program(settings),
    )
    extra = (minio.program(settings),) if settings.store == "minio" else ()
    return tuple(sorted((*always, *extra), key=lambda program: program.start_order))


def up(settings: Settings, store: str | None, say: Say) -> Settings:
    """Bring the stack up, or what is dead of it, and wait until all is healthy; returns the settings in force."""
    with state.lock(settings.home, lambda: say("another command changes this stack: waiting for it")):
        settings, known = _settle(Settings(home=settings.home), store)
        wanted = programs(settings, Path(known.postgres_folder))
        if supervisor.answers(settings):
            _repair(settings, wanted, say)
        else:
            _start(settings, known, wanted, say)
    return settings


def _settle(settings: Settings, store: str | None) -> tuple[Settings, state.State]:
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


def _start(settings: Settings, known: state.State, wanted: tuple[Program, ...], say: Say) -> None:
    """Start from nothing; on failure nothing is left running."""
    _end_leftovers(settings.home, say)
    require_free([SUPERVISOR, *(port for program in wanted for port in program.ports)], settings)
    say(f"starting {', '.join(program.name for program in wanted)}")
    postgres.prepare(settings, Path(known.postgres_folder))
    kafka.prepare(settings)
    if settings.store == "minio":
        minio.prepare(settings)
    supervisor.start(settings, wanted)
    try:
        _start_programs(settings, wanted, say)
    except BaseException:
        _stop(settings, say)
        raise


def _repair(settings: Settings, wanted: tuple[Program, ...], say: Say) -> None:
    """Start what does not run under a live supervisord."""
    states = supervisor.states(settings)
    dead = [program.name for program in wanted if states[program.name].state not in (RUNNING, STARTING)]
    if dead:
        say(f"starting again: {', '.join(dead)}")
    elif not any(program.check() for program in wanted):
        say("the stack is up already")
        return _finish(settings)
    return _start_programs(settings, wanted, say)


def _start_programs(settings: Settings, wanted: tuple[Program, ...], say: Say) -> None:
    for program in wanted:
        supervisor.start_program(settings, program.name)
    _wait_healthy(settings, wanted, say)
    _finish(settings)


def _finish(settings: Settings) -> None:
    """Make the database and the bucket, where they are not there yet."""
    postgres.finish(settings)
    if settings.store == "minio":
        minio.finish(settings)
    else:
        (settings.home / "bucket").mkdir(exist_ok=True)


def _wait_healthy(settings: Settings, wanted: tuple[Program, ...], say: Say) -> None:
    started, pending = time.monotonic(), list(wanted)
    runs: dict[str, set[int]] = {program.name: set() for program in wanted}
    while pending:
        states = supervisor.states(settings)
        for program in tuple(pending):
            fault, waited_s = program.check(), time.monotonic() - started
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


def down(settings: Settings, say: Say) -> None:
    """Stop everything of this home, in the order that loses nothing; returns when no process is left."""
    if not settings.home.exists() and not processes.ours(settings.home):
        say("nothing to stop")
        return
    with state.lock(settings.home, lambda: say("another command changes this stack: waiting for it")):
        if not _stop(Settings(home=settings.home), say):
            say("nothing to stop")


def _stop(settings: Settings, say: Say) -> bool:
    """Stop through supervisord where it answers, then end what is left; returns whether anything ran."""
    found = supervisor.answers(settings)
    if found:
        daemon = processes.ours(settings.home).get(processes.SUPERVISOR, [])
        say("stopping")
        supervisor.rpc(settings).shutdown()
        processes.wait_gone(daemon, patience_s=STOPPED_WITHIN_S)
    return _end_leftovers(settings.home, say) or found


_STOP_FIRST = (processes.SUPERVISOR,)
_STOP_LAST = ("kafka", "zookeeper", "minio", "postgres")
_STOP_SIGNALS = {"postgres": signal.SIGINT}


def _end_leftovers(home: Path, say: Say) -> bool:
    """End processes of ours that no supervisord looks after; returns whether there were any.

    supervisord goes first (it would start the others again), then everything that writes, then what it writes to.
    """
    left = processes.ours(home)
    middle = sorted(set(left) - {*_STOP_FIRST, *_STOP_LAST})
    for name in (*_STOP_FIRST, *middle, *_STOP_LAST):
        if name in left:
            say(f"ending what was left of {name} (pid {', '.join(str(p.pid) for p in left[name])})")
            processes.end(left[name], _STOP_SIGNALS.get(name, signal.SIGTERM), patience_s=30)
    return bool(left)
