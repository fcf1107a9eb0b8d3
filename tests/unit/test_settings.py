"""Settings that cannot be used are named, all at once, and secrets are not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import running
from twofold.errors import UsageError
from twofold.settings import Settings
from twofold.stack.lifecycle import environment_file


def test_all_faults_are_named_and_no_value_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_KAFKA_PORT", "soon")
    monkeypatch.setenv("TWOFOLD_POSTGRES_PASSWORD", "my$ecret")
    with pytest.raises(UsageError, match=r"(?s)KAFKA_PORT: .*integer.*POSTGRES_PASSWORD: holds") as told:
        Settings()
    assert "my$ecret" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SERVICE_GOOD_SAMPLES", "0", "greater than 0"),
        ("SERVICES_EVERY_S", "0", "greater than 0"),
        ("SERVICE_RESTARTS_PER_HOUR", "-1", "greater than or equal to 0"),
        ("STATSD_PORT", "99999", "less than or equal to 65535"),
        ("KAFKA_PORT", "0", "greater than or equal to 1"),
        ("STREAM_SUPERVISOR", "host", "is not written as `host:port`"),
    ],
)
def test_what_nothing_can_work_with_is_refused(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TWOFOLD_{name}", value)
    with pytest.raises(UsageError, match=f"TWOFOLD_{name}: .*{said}"):
        Settings()


def test_what_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As of `TWOFOLD_HOME=$UNSET`: the home was the working folder, and was filled."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TWOFOLD_{name.upper()}", raising=False)
    unset = Settings()
    for name in Settings.model_fields:
        monkeypatch.setenv(f"TWOFOLD_{name.upper()}", "")
    assert Settings() == unset
    assert unset.home == tmp_path / ".twofold"


def test_what_the_stack_writes_down_is_read_back(tmp_path: Path) -> None:
    written = running.fresh_settings(tmp_path, tmp_path)
    (tmp_path / "stack.env").write_text(environment_file(written))
    read = Settings(home=tmp_path)
    for name in running.GIVEN:
        assert getattr(read, name).get_secret_value() == running.GIVEN[name]


def test_a_home_is_a_users_own_where_there_is_such_a_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`~nobody-of-that-name` stays a folder's name, as a shell leaves it; it was a traceback."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    expected = {"~/s": "s", "~no-such-user/s": "~no-such-user/s", "s": "s"}
    assert {given: Settings(home=Path(given)).home for given in expected} == {
        given: tmp_path / path for given, path in expected.items()
    }
