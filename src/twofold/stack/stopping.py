"""Take the embedded stack down.

lock ─► supervisord stops programs in descending start order ─► end what is left
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from twofold.settings import Settings
from twofold.stack import processes, state, supervisor

Say = Callable[[str], None]
"""Where progress goes, a line at a time."""

STOPPED_WITHIN_S = 240.0


def down(settings: Settings, say: Say) -> None:
    """Stop everything of this home, in the order that loses nothing; returns when no process is left."""
    if not settings.home.exists() and not processes.ours(settings.home):
        say("nothing to stop")
        return
    with state.lock(settings.home, lambda: say("another command changes this stack: waiting for it")):
        if not stop(Settings(home=settings.home), say):
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


_STOP_FIRST = (processes.SUPERVISOR,)
_STOP_LAST = ("airflow-api-server", "kafka", "zookeeper", "minio", "postgres")
_STOP_SIGNALS = {"postgres": signal.SIGINT}


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
