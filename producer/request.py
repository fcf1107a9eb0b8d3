"""What one run of the producer is asked to do: plain values, checked, and sent to its worker processes as they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from twofold.errors import UsageError


@dataclass(frozen=True)
class Shares:
    """Shares (0 to 1) of records that a generated stream gives on purpose; together at most 1."""

    duplicates: float = 0.0
    late: float = 0.0
    out_of_order: float = 0.0
    malformed: float = 0.0
    future: float = 0.0


@dataclass(frozen=True)
class Request:
    """One run, as asked on the command line."""

    from_file: str | None = None
    generate: int | None = None
    """How many records to generate; 0 = without end."""
    seed: int = 0
    shares: Shares = field(default_factory=Shares)
    interval_ms: float | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None
    """Only the first so many records of the source, whether sent by this run or an earlier one."""
    rate: float | None = None
    """Records per second; None = as fast as possible."""
    speed_up: float | None = None
    """Keep the gaps between `send_at`, divided by this."""
    workers: int = 1
    restart: bool = False
    health_port: int = 0
    own: bool = False
    """Whether it sends the definition's own replay, as the pipeline's service does."""

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        for wrong, message, remedy in self._conflicts():
            if wrong:
                raise UsageError(message, remedy)

    @property
    def path(self) -> Path | None:
        """The file to replay, absolute; None for another source or stdin."""
        return Path(self.from_file).absolute() if self.from_file not in (None, "-") else None

    @property
    def from_stdin(self) -> bool:
        """Whether records come from standard input."""
        return self.from_file == "-"

    def _conflicts(self) -> list[tuple[bool, str, str]]:
        mapped = self.from_file is None and self.generate is None
        ranged = bool(self.since or self.until or self.speed_up)
        return [
            (
                self.from_file is not None and self.generate is not None,
                "--from and --generate name two sources",
                "choose one",
            ),
            (
                ranged and not mapped,
                "--since, --until and --speed-up need a send_at",
                "leave out --from and --generate: only the definition's replay query has send_at",
            ),
            (
                self.rate is not None and self.speed_up is not None,
                "--rate and --speed-up both set the pace",
                "choose one",
            ),
            (
                self.from_stdin and self.workers > 1,
                "standard input cannot be shared by several workers",
                "save it to a file, or use one worker",
            ),
            (
                sum(vars(self.shares).values()) > 1,
                "the shares of special records add up to more than 1",
                "lower --duplicates, --late, --out-of-order, --malformed or --future",
            ),
        ]
