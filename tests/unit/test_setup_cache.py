"""What is put into the per-user cache is put there whole, and what was there is replaced in one step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from twofold.setup.cache import SetupError, point, publish, run, staging


def test_failed_stage_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), staging(tmp_path, "jars") as stage:
        (stage / "half").write_text("a half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_stage_of_a_killed_setup_is_emptied(tmp_path: Path) -> None:
    (tmp_path / ".jars.stage").mkdir()
    (tmp_path / ".jars.stage" / "half").touch()
    with staging(tmp_path, "jars") as stage:
        assert list(stage.iterdir()) == []


def test_damaged_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "sets" / "one"
    target.mkdir(parents=True)
    (target / "stale").touch()
    with staging(tmp_path, "jars") as stage:
        (stage / "made").mkdir()
        (stage / "made" / "fresh").touch()
        publish(stage / "made", target)
    assert [path.name for path in target.iterdir()] == ["fresh"]


def test_link_moves_even_after_a_kill_between_its_two_steps(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    link = tmp_path / "jars"
    point(link, tmp_path / "old")
    (tmp_path / ".jars.fresh").symlink_to(tmp_path / "old")
    point(link, tmp_path / "new")
    assert link.resolve() == tmp_path / "new"


def test_failed_command_is_told_with_its_last_lines_and_a_remedy(tmp_path: Path) -> None:
    program = "print('......'); print('no such revision'); raise SystemExit(3)"
    with pytest.raises(SetupError) as raised:
        run([sys.executable, "-c", program], "fetching", tmp_path / "log", "try again")
    assert raised.value.message == f"fetching failed (exit 3); the end of {tmp_path / 'log'}:\n    no such revision"
    assert raised.value.remedy == "try again"


def test_missing_program_is_told_without_a_trace(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="there is no program"):
        run(["twofold-no-such-program"], "fetching", tmp_path / "log", "install it")


def test_what_takes_long_is_named_before_it_is_done(tmp_path: Path) -> None:
    """In a log, too, as of a build: a program that takes minutes would seem to hang."""
    said, log = tmp_path / "said", tmp_path / "log"
    shows = f"import pathlib; print(pathlib.Path({str(said)!r}).read_text())"
    call = f"run([sys.executable, '-c', {shows!r}], 'compiling', Path({str(log)!r}), '')"
    program = f"import sys; from pathlib import Path; from twofold.setup.cache import run; {call}"
    with said.open("wb") as errors:
        subprocess.run([sys.executable, "-c", program], stderr=errors, check=True)
    assert "compiling …" in log.read_text() and "compiling … 0:" in said.read_text()
