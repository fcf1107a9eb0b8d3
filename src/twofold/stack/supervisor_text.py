"""Values as supervisord's configuration reads them, for its file and for programs declared while it runs."""

from __future__ import annotations

from collections.abc import Mapping

from twofold.errors import TwofoldError


def escape(text: str) -> str:
    """Any value: `%` expands, and ` ;` or ` #` would start a comment."""
    if "\n" in text or " ;" in text or " #" in text:
        raise TwofoldError(f"supervisord cannot be given the text {text!r}", "use a folder without ` ;` or ` #`")
    return text.replace("%", "%%")


def log_path(path: object) -> str:
    """A log file: supervisord expands its name twice."""
    return escape(escape(str(path)))


def environment(variables: Mapping[str, str]) -> str:
    """The value of `environment=`."""
    return ",".join(f"{key}={_quote(value)}" for key, value in variables.items())


def _quote(value: str) -> str:
    """supervisord knows no escapes here, and takes quotes off both ends."""
    mark = "'" if '"' in value else '"'
    if mark in value or value.strip("'\"") != value:
        raise TwofoldError(f"supervisord cannot be given the text {value!r}", "choose one without quotes")
    return escape(f"{mark}{value}{mark}")
