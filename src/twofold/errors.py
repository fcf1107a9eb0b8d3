"""Every error a user can cause or meet, each a sentence and a remedy.

with as_sentences():      # in every program's `main`: printed without a stack trace, the end with its exit code
    work()
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

_LISTED = 10


class TwofoldError(Exception):
    """Something the user can act on: what happened, and what to do about it."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message


class UsageError(TwofoldError):
    """The command line itself is wrong: an unknown pipeline, an option that does not fit."""

    exit_code = 2


class DefinitionError(TwofoldError):
    """A pipeline file breaks its schema; the message lists all faults."""


class IncompatibleDefinition(TwofoldError):
    """The definition changed in a way the existing tables or checkpoints cannot follow."""


class DefinitionChanged(TwofoldError):
    """The event's declaration changed since the job started; nothing more may be written under the old one."""

    def __init__(self, pipeline: str, differences: Sequence[str]) -> None:
        listed = ", ".join(differences[:_LISTED])
        more = f" and {len(differences) - _LISTED} more" if len(differences) > _LISTED else ""
        super().__init__(
            f"the definition of {pipeline} changed while its stream ran: {listed}{more}",
            f"restart the stream, which resumes where it was: `twofold stream {pipeline}` "
            "(as a service it restarts by itself)",
        )


class ClockBehind(TwofoldError):
    """This machine's clock is before a table's last commit, and the times of Iceberg's commits cannot go back."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"this machine's clock was set back: it is behind the last commit of {what}",
            "set the clock right, or wait until it is past that commit, and run it again; nothing was changed",
        )


class NotRunning(TwofoldError):
    """A service that the command needs does not answer."""


class StoreAway(NotRunning):
    """The S3 store does not answer."""

    def __init__(self, endpoint: str, said: object = "") -> None:
        super().__init__(
            f"the S3 store does not answer at {endpoint}" + (f": {said}" if said else ""),
            "start the embedded one with `twofold up --store minio`, or set TWOFOLD_S3_ENDPOINT",
        )


class Busy(TwofoldError):
    """Another process holds the pipeline's lock for this role."""


class BoundaryError(TwofoldError):
    """The boundary, or the ingested data, belongs to another pipeline, topic or history."""


class QueryError(TwofoldError):
    """A query names a table that does not exist, or does something else than read, or is no SQL."""


def first_line(error: BaseException) -> str:
    """What an error says, cut to fit into a sentence; its type's name where it says nothing.

    >>> first_line(ValueError("no: a long story.")), first_line(MemoryError())
    ('no: a long story', 'MemoryError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")


@contextmanager
def writing_to(target: Path) -> Iterator[None]:
    """Where a path that the user names is written: what the system says against it becomes a sentence."""
    try:
        yield
    except OSError as error:
        said = f"{target} cannot be written: {error.filename or target}: {error.strerror or error}"
        raise TwofoldError(said, "name another place, or make this one writable") from error


def end(error: TwofoldError, exit_code: int | None = None) -> NoReturn:
    """Print the error and end this program, with the error's own exit code unless another is given."""
    sys.stderr.write(f"error: {error}\n")
    sys.exit(error.exit_code if exit_code is None else exit_code)


@contextmanager
def as_sentences() -> Iterator[None]:
    """An error that the user can act on ends the program with a sentence and a remedy; any other with a trace."""
    try:
        yield
    except TwofoldError as error:
        end(error)
