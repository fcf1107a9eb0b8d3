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
