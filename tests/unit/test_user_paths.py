"""Paths that users name: links that lead nowhere or to each other, pipes, devices, places that cannot be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner

from twofold.cli import cli
from twofold.commands.check import check_files
from twofold.definition.load import MAX_FILE_BYTES, check_file, definition_bytes
from twofold.definition.watch import FolderWatch
from twofold.errors import TwofoldError
from twofold.reader import output
from twofold.settings import Settings

ROOT = Path(__file__).parents[2]
NOWHERE = ["broken/x", "loop/x", "file/x", "/proc/none/x", "y" * 300]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """It has links and a file of one event."""
    (tmp_path / "broken").symlink_to("none")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text('{"id": 1}\n')
    return tmp_path


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """A named pipe; who waits for it gets its end, and so is no test that hangs."""
    path = tmp_path / "pipe.yaml"
    os.mkfifo(path)
    writer = Thread(target=lambda: path.open("wb").close())
    writer.start()
    yield path
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer.join()
    os.close(reader)


def test_pipes_and_devices_are_no_definitions(tmp_path: Path, pipe: Path) -> None:
    device = tmp_path / "device.yaml"
    device.symlink_to("/dev/null")
    for path in (pipe, device):
        _, faults = check_file(path)
        (said,) = map(str, faults)
        assert said.startswith(f"{path}:1: found no regular file, ") and "put a file in its place" in said
    assert not FolderWatch(tmp_path, (0,)).is_due(0)


def test_a_long_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    path.touch()
    os.truncate(path, 1 << 40)
    assert len(definition_bytes(path)) == MAX_FILE_BYTES + 1
    _, (fault,) = check_file(path)
    assert fault.found == f"{1 << 40} bytes"


def test_check_of_links_that_lead_to_each_other(folder: Path) -> None:
    (only,) = check_files([folder / "loop", folder / "loop"])
    assert [fault.found for fault in only.faults] == ["too many levels of symbolic links"]


def test_settings_with_jars_behind_such_a_link(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_JARS", str(folder / "loop"))
    assert Settings().jars == folder / "loop"


@pytest.mark.parametrize("place", [*NOWHERE, "broken", "loop"])
def test_where_no_definition_can_be_written(folder: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_PIPELINES", "")
    for command, said in (("init p --as a.jsonl --from", "p.yaml cannot be written: "), ("check", "no folder ")):
        asked = [*command.split(), *([str(folder / "file")] if command != "check" else [])]
        raised = CliRunner().invoke(cli, ["--pipelines", str(folder / place), *asked]).exception
        assert isinstance(raised, TwofoldError) and said in str(raised) and "remedy: " in str(raised)


@pytest.mark.parametrize("place", NOWHERE)
def test_where_no_answer_can_be_written(folder: Path, place: str) -> None:
    with pytest.raises(TwofoldError, match=r"cannot be written: |no folder "), output.whole(folder / place):
        pass
    with (
        pytest.raises(TwofoldError, match="cannot be written: "),
        output.whole_folder(folder / place, overwrite=True),
    ):
        pass


@pytest.mark.parametrize("place", ["y" * 300, "loop", "none"])
def test_files_that_cannot_be_looked_at(folder: Path, place: str) -> None:
    """A name too long was a stack trace."""
    file, pipelines = folder / place, str(ROOT / "pipelines")
    commands = [["land", "flights", str(file), "--as", "a.jsonl"], ["replay", "flights", "--mended", str(file)]]
    for command in commands:
        result = CliRunner().invoke(cli, ["--pipelines", pipelines, *command])
        assert isinstance(result.exception, TwofoldError) and str(file) in str(result.exception)


def test_a_home_that_cannot_be_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_HOME", "")
    raised = CliRunner().invoke(cli, ["--home", str(folder / "broken"), "up"]).exception
    assert isinstance(raised, TwofoldError) and "broken cannot be written: " in str(raised)
