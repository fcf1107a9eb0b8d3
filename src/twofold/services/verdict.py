"""Is a service healthy? Judged by its progress over several looks at it. Pure: a `Look` is data.

Look, Look, Look … ─► judge ─► Verdict: healthy | finished | stopped | left down | lost | stuck | not yet
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from twofold.services.record import PRODUCER, STREAM, Record, moment

Kind = Literal["healthy", "finished", "stopped", "left down", "lost", "stuck", "not yet"]
STARTS_SLOWER = 3
"""A start, first batch included, may take that many times as long as a pause in a service's work."""
IDLE_COUNTS_S = 25.0
"""Past the trigger: for that long a report of nothing to read counts, the same as before `StreamStalled` fires.

Spark says every ten seconds that it is idle (`spark.sql.streaming.noDataProgressEventInterval`), or with the first
trigger past them; the rest is for pauses of its JVM and of a loaded machine.
"""
NEVER_STARTED = "STOPPED"
"""supervisord's word for what it has not started, or was asked to stop; for a moment also between end and new start."""
GOOD, BAD, NEITHER = "good", "bad", "neither"


@dataclass(frozen=True)
class Look:
    """One look at a service: its supervisor's state, its own report, and whether Kafka and PostgreSQL answer."""

    pid: int
    state: str
    """supervisord's word."""
    uptime_s: float = 0.0
    record: Record = field(default_factory=Record)
    health: Mapping[str, Any] = field(default_factory=dict)
    """The body of `/healthz`; empty: it does not answer."""
    missing: str = ""
    """What the service needs and what does not answer, in a sentence; asked only when it makes no progress."""
    announced: bool = False
    """Whether this process has said where its `/healthz` is: it has answered once."""

    @property
    def silent(self) -> bool:
        """Whether it no longer answers: to be said, though of one look the machine may have been too slow."""
        return self.announced and not self.health

    @property
    def last_end(self) -> str:
        """How it ended last; empty: it never did."""
        return f"last ended with {self.record.ends[-1]}" if self.record.ends else ""


@dataclass(frozen=True)
class HealthLimits:
    """What counts as healthy."""

    good_samples: int = 3
    stalled_after_s: float = 120.0
    """Past the pause between batches."""
    silent_after_s: float = 120.0
    """From the last look that it answered, or the first one."""


@dataclass(frozen=True)
class Verdict:
    """The result of the looks so far; `reason` is a clause with the numbers, about the last of them."""

    kind: Kind
    reason: str

    @property
    def fine(self) -> bool:
        """Whether nothing needs to be done."""
        return self.kind in ("healthy", "finished")


def judge(service: str, looks: Sequence[Look], limits: HealthLimits) -> Verdict:
    """Judge a service by the looks so far, oldest first."""
    last = looks[-1]
    if settled := _settled(last):
        return settled
    if [look.state for look in looks[-2:]] == [NEVER_STARTED, NEVER_STARTED]:
        return Verdict("lost", f"its supervisor, itself restarted, has not started it ({last.last_end or 'no end'})")
    rated = [(look, *rate(service, before, look)) for before, look in zip([None, *looks[:-1]], looks, strict=True)]
    counted = _run_of_good(rated)
    reason = rated[-1][2]
    if stalled := _stalled(service, looks, limits):
        return Verdict("not yet" if last.missing else "stuck", stalled)
    if len(counted) < limits.good_samples:
        return Verdict("not yet", reason)
    if growing := _growing(counted[-limits.good_samples :]):
        return Verdict("not yet", growing)
    return Verdict("healthy", reason)


def _settled(last: Look) -> Verdict | None:
    """Verdicts that need no further look."""
    if last.record.stopped_at:
        return Verdict("stopped", f"stopped manually on {moment(last.record.stopped_at)}")
    if last.record.left_down:
        return Verdict("left down", f"left down: {last.record.left_down}")
    if last.record.finished and not last.pid:
        return Verdict("finished", f"finished: all is sent ({last.last_end})")
    return None


def rate(service: str, before: Look | None, look: Look) -> tuple[str, str]:
    """One look: good, bad or neither, and the clause that says why."""
    if not look.pid:
        return BAD, "; ".join(filter(None, (f"does not run ({look.state})", look.last_end, look.missing)))
    if not look.health:
        return BAD, f"runs for {look.uptime_s:.0f} s and does not answer yet; {look.missing}".rstrip("; ")
    same = before is not None and before.pid == look.pid and bool(before.health)
    rated = _rate_producer if service == PRODUCER else _rate_stream
    verdict, text = rated(before.health if before and same else None, look.health)
    return (BAD, f"{look.missing}; the service: {text}") if look.missing else (verdict, text)


def _numbers(service: str, now: Mapping[str, Any]) -> str:
    if service == PRODUCER:
        return f"{now['acked']:,} records acknowledged, {now['in_flight']:,} in flight, {now['rate_per_s']:,.0f}/s"
    behind = now["offsets_behind"]
    return (
        f"batch {now['batch']}, {'unknown' if behind is None else format(behind, ',')} offsets behind,"
        f" last progress {now['last_batch_age_s']:.0f} s ago"
    )


def _rate_producer(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> tuple[str, str]:
    numbers = _numbers(PRODUCER, now)
    if now["state"] == "waiting_for_broker":
        return BAD, f"waits for the broker since {now['waiting_s']:.0f} s; {numbers}"
    if now["state"] == "failed":
        return BAD, f"failed; {numbers}"
    if now["in_flight"] == 0 and now["state"] != "starting":
        return GOOD, f"nothing is due; {numbers}"
    if before is not None and now["acked"] > before["acked"]:
        return GOOD, f"sends; {numbers}"
    return NEITHER, f"{now['state']}; {numbers}"


def _rate_stream(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> tuple[str, str]:
    behind, numbers = now["offsets_behind"], _numbers(STREAM, now)
    if now["state"] not in ("running", "draining"):
        return (BAD if now["state"] == "retrying" else NEITHER), "; ".join(
            filter(None, (f"is {now['state']}", now.get("problem"), numbers))
        )
    idle = now.get("idle") or behind == 0
    if idle and now["last_batch_age_s"] <= IDLE_COUNTS_S + now.get("trigger_s", 0.0):
        return GOOD, f"nothing to read; {numbers}"
    if before is not None and now["batch"] is not None and now["batch"] != before["batch"]:
        return GOOD, f"the batch advances; {numbers}"
    # A batch that takes long, or what it needs hangs: only its end shows which.
    return NEITHER, f"{'had nothing to read, and no word since' if idle else 'at work'}; {numbers}"


def _run_of_good(rated: Sequence[tuple[Look, str, str]]) -> list[Look]:
    """Good looks since the last bad one, all at one process."""
    run: list[Look] = []
    for look, mark, _ in rated:
        if mark == BAD or (run and run[-1].pid != look.pid):
            run = []
        if mark == GOOD:
            run.append(look)
    return run


def _stalled(service: str, looks: Sequence[Look], limits: HealthLimits) -> str:
    """Too long without progress while there is work, or without an answer; empty: not so."""
    last, limit_s = looks[-1], limits.stalled_after_s
    if now := last.health:
        age_s = float(now["waiting_s" if service == PRODUCER else "last_batch_age_s"])
        too_long = age_s > limit_s * (STARTS_SLOWER if service == STREAM and now["batch"] is None else 1)
        said = [f"no progress for {age_s:.0f} s", f"is {now['state']}", now.get("problem"), _numbers(service, now)]
    else:
        ours = [look for look in looks if look.pid == last.pid]
        # What never answered has been silent since its start; of the rest nobody knows how long before the first look.
        since_s = [look.uptime_s for look in ours if look.health][-1:] or [ours[0].uptime_s if last.announced else 0.0]
        age_s = last.uptime_s - since_s[0]
        too_long = last.pid > 0 and last.uptime_s > limit_s * STARTS_SLOWER and age_s > limits.silent_after_s
        said = [f"runs for {last.uptime_s:.0f} s and has not answered for {age_s:.0f} s"]
    return "; ".join(filter(None, (*said, last.missing))) if too_long else ""


def _growing(looks: Sequence[Look]) -> str:
    """Offsets behind that grew from each look to the next; empty: they did not."""
    behind = [look.health.get("offsets_behind") or 0 for look in looks]
    if len(behind) < 2 or any(later <= earlier for earlier, later in pairwise(behind)):
        return ""
    return f"falls behind: {' → '.join(f'{count:,}' for count in behind)} offsets"
