"""Bring the embedded stack up, and take it down; the state kept in between.

up:    lock ─► end orphans ─► ports free? ─► prepare ─► supervisord ─► all servers at once
                     storage healthy ─► databases, bucket ─► Airflow set up and started ─► all healthy
down:  lock ─► supervisord stops programs in descending start order ─► end what is left
"""

from __future__ import annotations

import json
import secrets
import shlex
import signal
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import SecretStr
from statsd import StatsClient

from twofold.errors import TwofoldError, UsageError, writing_to
from twofold.local_files import locked, write_whole
from twofold.settings import GENERATED, KEPT, Settings, Use
from twofold.setup.jars import ensure_registry
from twofold.stack import airflow_programs, brokers, postgres, processes, programs, supervisor
from twofold.stack.programs import PORTS, Program, Say, require_free
from twofold.stack.supervisor import FATAL, RUNNING, STARTING
from twofold.supervisord import log_file

HEALTHY_WITHIN_S = 300.0
TRIES = 3
"""Runs of one program that `up` watches fail; a broker needs two where its predecessor was killed."""
STOPPED_WITHIN_S = 240.0
_STOP_FIRST = (processes.SUPERVISOR,)
_STOP_LAST = ("airflow-api-server", "kafka", "zookeeper", "minio", "postgres")
_STOP_SIGNALS = {"postgres": signal.SIGINT}


@dataclass(frozen=True)
class HomeState:
    """What commands must know of this home, whatever the settings say."""

    store: str
    postgres_folder: str
    """Where PostgreSQL's data (and, where needed, a copy of its binaries) are; outside home if it must be."""
    airflow: bool = False
    """Whether the last `up` was with Airflow."""
    monitoring: bool = False
    """The same for monitoring."""
    registry: bool = False
    """The same for the schema registry."""

    def write(self, home: Path) -> None:
        """Put the state in place at once."""
        write_whole(home / "stack.json", json.dumps(asdict(self), indent=2) + "\n", 0o600)


def read_state(home: Path) -> HomeState | None:
    """The state of a home, or None where no stack was ever started."""
    try:
        return HomeState(**json.loads((home / "stack.json").read_text()))
    except FileNotFoundError:
        return None


def with_secrets(settings: Settings) -> Settings:
    """The settings with a generated value for every password that has none yet."""
    marked = [name for name, field in Settings.model_fields.items() if GENERATED in field.metadata]
    missing = [name for name in marked if not getattr(settings, name).get_secret_value()]
    return settings.model_copy(update={name: SecretStr(secrets.token_hex(16)) for name in missing})


def environment_file(settings: Settings) -> str:
    """Text of `stack.env`: the settings that are marked to be kept, and the ports."""
    environment = settings.environment()
    names = [
        f"TWOFOLD_{name.upper()}"
        for name, field in Settings.model_fields.items()
        if KEPT in field.metadata or any(isinstance(mark, Use) for mark in field.metadata)
    ]
    return "".join(f"{name}={shlex.quote(environment[name])}\n" for name in names)


def possible(settings: Settings, known: HomeState) -> tuple[Program, ...]:
    """Everything that this stack can run, in start order."""
    return (
        postgres.program(settings, Path(known.postgres_folder)),
        *([programs.minio(settings)] if settings.store == "minio" else []),
        *brokers.programs(settings),
        programs.registry(settings),
        *airflow_programs.programs(settings),
        *programs.monitoring(settings),
    )


def chosen(all_programs: Iterable[Program], known: HomeState) -> list[Program]:
    """Those that are wanted."""
    unwanted = {"airflow": not known.airflow, "monitoring": not known.monitoring, "registry": not known.registry}
    return [program for program in all_programs if not unwanted.get(program.group)]


def _lock(home: Path, say: Say) -> AbstractContextManager[None]:
    with writing_to(home):
        home.mkdir(parents=True, exist_ok=True)
    return locked(home / "lock", lambda: say("another command changes this stack: waiting for it"))


@dataclass(frozen=True)
class Asked:
    """What `twofold up` is asked for; None: as the last time, or the usual."""

    store: str | None
    airflow: bool
    """Without it, as without monitoring or registry, one that runs is stopped."""
    monitoring: bool | None
    registry: bool | None
    new_postgres: bool
    """Where PostgreSQL's folder is gone, make an empty one; else that is refused."""


def up(settings: Settings, asked: Asked, say: Say) -> tuple[Settings, HomeState]:
    """Bring up the stack, or its dead programs, and wait until all are healthy; returns the settings in force."""
    with _lock(settings.home, say):
        settings, known = _settle(Settings(home=settings.home), asked)
        if known.monitoring:
            programs.prepare_monitoring(settings)
        if known.registry:
            ensure_registry()
        try:
            (_repair if supervisor.answers(settings) else _start)(settings, known, say)
        finally:
            # The exporter serves for weeks what Airflow's processes counted last: rules miss none that nobody wants.
            with suppress(OSError):  # a name that cannot be resolved now is no reason to end
                StatsClient(settings.statsd_host, settings.statsd_port).gauge("airflow.stopped", int(not known.airflow))
    return settings, known


def _settle(settings: Settings, asked: Asked) -> tuple[Settings, HomeState]:
    """Fix the store and the passwords of this home on its first start; refuse another store later."""
    known = read_state(settings.home)
    chosen = asked.store or settings.store
    if known is None:
        known = HomeState(chosen, str(postgres.choose_folder(settings.home)))
    elif known.store != chosen:
        raise UsageError(
            f"{settings.home} holds a stack with --store {known.store}: its tables cannot move to {chosen}",
            f"run `twofold up --store {known.store}`, or choose another folder with --home or TWOFOLD_HOME",
        )
    elif not Path(known.postgres_folder).is_dir() and asked.new_postgres:
        known = replace(known, postgres_folder=str(postgres.choose_folder(settings.home)))
        airflow_programs.forget_set_up(settings)
    elif not Path(known.postgres_folder).is_dir():
        raise TwofoldError(
            f"PostgreSQL's folder {known.postgres_folder} is gone, and the catalog of all tables with it",
            "bring it back from a copy; or have `twofold up --no-airflow --new-postgres` make an empty one, and then "
            "`twofold recatalog` the catalog, from the tables' own files",
        )
    settings = with_secrets(settings.model_copy(update={"store": chosen}))
    kept, path = environment_file(settings), settings.home / "stack.env"
    if path.exists() and processes.ours(settings.home).get(processes.SUPERVISOR):
        _refuse_moved_ports(path.read_text(), kept)
    write_whole(path, kept, 0o600)
    watched = known.monitoring if asked.monitoring is None else asked.monitoring
    registry = known.registry if asked.registry is None else asked.registry
    known = replace(known, airflow=asked.airflow, monitoring=watched, registry=registry)
    known.write(settings.home)
    return settings, known


def _refuse_moved_ports(before: str, after: str) -> None:
    """A running stack keeps its ports: its clients would lose it."""
    moved = sorted(line.partition("=")[0] for line in {*after.splitlines()} - {*before.splitlines()})
    if moved:
        raise UsageError(f"the stack runs with another {', '.join(moved)}", "run `twofold down` first")


def _start(settings: Settings, known: HomeState, say: Say) -> None:
    """Start from nothing; on failure nothing is left running."""
    all_programs = possible(settings, known)
    wanted = chosen(all_programs, known)
    end_leftovers(settings.home, say)
    require_free([PORTS["supervisor"], *(port for program in wanted for port in program.ports)], settings)
    say(f"starting {', '.join(program.name for program in wanted)}")
    postgres.prepare(settings, Path(known.postgres_folder))
    brokers.prepare(settings)
    if settings.store == "minio":
        programs.prepare_minio(settings)
    supervisor.start(settings, all_programs)
    try:
        _start_programs(settings, wanted, say)
    except BaseException:
        stop(settings, say)
        raise


def _repair(settings: Settings, known: HomeState, say: Say) -> None:
    """Under a live supervisord, start what does not run, and stop what is not wanted."""
    all_programs = possible(settings, known)
    wanted = chosen(all_programs, known)
    supervisor.declare(settings, all_programs)
    alive = {name for name, seen in supervisor.states(settings).items() if seen.state in (RUNNING, STARTING)}
    unwanted = [program.name for program in all_programs if program not in wanted and program.name in alive]
    if unwanted:
        say(f"stopping {', '.join(unwanted)}")
        supervisor.stop_programs(settings, reversed(unwanted))
    dead = [program.name for program in wanted if program.name not in alive]
    if dead:
        say(f"starting {', '.join(dead)}")
    elif not any(program.check() for program in wanted):
        say("the stack is up already")
        return _finish(settings)
    return _start_programs(settings, wanted, say)


def _start_programs(settings: Settings, wanted: list[Program], say: Say) -> None:
    """Start all; Airflow once its own database exists, and the database and bucket of the jobs that it will start."""
    since = time.monotonic()
    airflow = [program for program in wanted if program.group == "airflow"]
    supervisor.start_programs(settings, [program.name for program in wanted if program not in airflow])
    _wait_healthy(settings, [program for program in wanted if program.group == "storage"], say, since)
    _finish(settings)
    if airflow:
        airflow_programs.prepare(settings, say)
        supervisor.start_programs(settings, [program.name for program in airflow])
    _wait_healthy(settings, [program for program in wanted if program.group != "storage"], say, since)


def _finish(settings: Settings) -> None:
    """Make the database and the bucket, where they do not exist yet."""
    postgres.make_database(settings, settings.postgres_database)
    programs.make_bucket(settings)


def _wait_healthy(settings: Settings, wanted: list[Program], say: Say, since: float) -> None:
    pending = list(wanted)
    runs: dict[str, set[int]] = {program.name: set() for program in wanted}
    while pending:
        states = supervisor.states(settings)
        if not states:
            raise _failure(settings, processes.SUPERVISOR, "supervisord ended while its programs started")
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


def _failure(settings: Settings, name: str, what: str) -> TwofoldError:
    log, known = logged(settings, name)
    said = "\n  ".join([what, *([known.message] if known else []), "last lines of its log:", *log.splitlines()[-15:]])
    return TwofoldError(said, known.remedy if known else f"see {log_file(settings.home, name)}")


def logged(settings: Settings, name: str) -> tuple[str, TwofoldError | None]:
    """A program's log; what it means, and the remedy, where that is known."""
    path = log_file(settings.home, name)
    text = path.read_text(errors="replace") if path.exists() else ""
    return text, brokers.refused_data(settings, text) if name == "kafka" else None


def down(settings: Settings, say: Say) -> None:
    """Stop everything of this home, in the order that loses nothing; returns when no process is left."""
    if settings.home.exists() or processes.ours(settings.home):
        with _lock(settings.home, say):
            if stop(Settings(home=settings.home), say):
                return
    say("nothing to stop")


def stop(settings: Settings, say: Say) -> bool:
    """Stop through supervisord where it answers, then end what is left; returns whether anything ran."""
    found = supervisor.answers(settings)
    if found:
        daemon = processes.ours(settings.home).get(processes.SUPERVISOR, [])
        say("stopping")
        supervisor.rpc(settings).shutdown()
        processes.wait_gone(daemon, patience_s=STOPPED_WITHIN_S)
    return end_leftovers(settings.home, say) or found


def end_leftovers(home: Path, say: Say) -> bool:
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
