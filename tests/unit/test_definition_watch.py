"""A running job is bound to its definition: which changes of the file count, and what a file is that is no help."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from twofold.definition import fingerprint
from twofold.definition.load import load_file
from twofold.definition.watch import DefinitionWatch, FolderWatch
from twofold.errors import DefinitionChanged

TEXT = """\
name: gates
topic: gates
event:
  id: id
  time: at
  max_future: 1 day
  id_horizon: 7 days
  max_bytes: 1 MiB
  fields:
    id:    {type: string, required: true}
    at:    {type: timestamp, required: true}
    price: {type: "decimal(10,2)", min: 1.50, max: 99}
    kind:  {type: string, one_of: [a, b, c]}
filter: kind <> 'c'
lateness: 10 minutes
views:
  by_kind:
    window: 1 hour
    by: [kind]
    measures: {events: count(*)}
"""


def put(file: Path, text: str) -> None:
    """In place, with the time stamps it had: what a look at those would miss."""
    before = file.stat()
    file.write_text(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap(file: Path, text: str) -> None:
    """By a rename, as editors and `kubectl` do."""
    draft = file.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gates.yaml"
    path.write_text(TEXT)
    return path


CHANGES: dict[str, tuple[str, str, str]] = {
    "a field added": ("    kind: ", "    gate:  {type: string}\n    kind: ", "event.fields.gate was added"),
    "a field removed": (
        '    price: {type: "decimal(10,2)", min: 1.50, max: 99}\n',
        "",
        "event.fields.price was removed",
    ),
    "a rule added": ("one_of: [a, b, c]", "one_of: [a, b, c], required: true", "event.fields.kind was changed"),
    "a bound": ("max: 99", "max: 98", "event.fields.price was changed"),
    "an allowed value": ("[a, b, c]", "[a, b, d]", "event.fields.kind was changed"),
    "a type": ("decimal(10,2)", "decimal(11,2)", "event.fields.price was changed"),
    "the filter": ("kind <> 'c'", "kind <> 'b'", "filter was changed"),
    "no filter": ("filter: kind <> 'c'\n", "", "filter was removed"),
    "a limit of the event": ("max_future: 1 day", "max_future: 2 days", "event.max_future was changed"),
    "the horizon of ids": ("id_horizon: 7 days", "id_horizon: 8 days", "event.id_horizon was changed"),
    "the largest record": ("max_bytes: 1 MiB", "max_bytes: 2 MiB", "event.max_bytes was changed"),
    "a comment": ("lateness:", "# how late\nlateness:", ""),
    "the order of fields": ("    id:    {type: string, required: true}\n", "", ""),
    "the order of allowed values": ("[a, b, c]", "[c, a, b]", ""),
    "a bound, written otherwise": ("min: 1.50", "min: 1.5", ""),
    "a default, written out": ("one_of: [a, b, c]", "one_of: [a, b, c], required: false", ""),
    "a duration, written otherwise": ("max_future: 1 day", "max_future: 24 hours", ""),
    "a view": ("count(*)", "count(price)", ""),
    "the lateness": ("10 minutes", "11 minutes", ""),
    "how CSV is written": ("lateness:", "files: {decimal: ','}\nlateness:", "files was added"),
    "what becomes of taken files": ("lateness:", "files: {taken: archive}\nlateness:", ""),
    "how the stream runs": ("lateness:", "stream: {trigger: 9 seconds}\nlateness:", ""),
}
"""What is replaced by what, and what of the event that changes; empty: nothing."""


def changed_text(name: str) -> str:
    old, new, _ = CHANGES[name]
    assert old in TEXT
    text = TEXT.replace(old, new)
    return text.replace("filter:", f"{old}filter:") if name == "the order of fields" else text


@pytest.mark.parametrize("write", [put, swap], ids=["in place", "by a rename"])
@pytest.mark.parametrize("name", CHANGES)
def test_what_decides_a_record_counts_and_nothing_else(
    file: Path, name: str, write: Callable[[Path, str], None]
) -> None:
    watch = DefinitionWatch(load_file(file))
    assert not watch.changed()
    write(file, changed_text(name))
    difference = CHANGES[name][2]
    assert watch.changed() is bool(difference)
    assert watch.changed() is bool(difference)
    if difference:
        with pytest.raises(DefinitionChanged, match=f"definition of gates changed while its stream ran: {difference}"):
            watch.check()
    else:
        watch.check()
    write(file, TEXT)
    assert not watch.changed()


@pytest.mark.parametrize("name", CHANGES)
def test_the_fingerprint_of_the_event_is_equal_where_nothing_of_it_changed(file: Path, name: str) -> None:
    before = fingerprint.event(load_file(file))
    file.write_text(changed_text(name))
    assert (fingerprint.event(load_file(file)) == before) == (not CHANGES[name][2])


def test_the_fingerprint_is_the_same_in_every_process_and_release(file: Path) -> None:
    assert fingerprint.event(load_file(file)) == "c76f78a7947d56b3"


def test_a_change_made_while_the_job_started_is_seen_by_the_first_look(file: Path) -> None:
    pipeline = load_file(file)
    put(file, changed_text("a field added"))
    assert DefinitionWatch(pipeline).changed()


def test_many_differences_are_told_in_one_short_sentence(file: Path) -> None:
    watch = DefinitionWatch(load_file(file))
    more = "".join(f"    f{number:02}: {{type: int}}\n" for number in range(12))
    put(file, TEXT.replace("    kind: ", f"{more}    kind: "))
    with pytest.raises(DefinitionChanged, match=r"event\.fields\.f09 was added and 2 more\n"):
        watch.check()


def broken(file: Path) -> None:
    file.write_text(TEXT.replace("type: timestamp", "type: moment"))


def cut(file: Path) -> None:
    file.write_text(TEXT[: len(TEXT) // 2])


def emptied(file: Path) -> None:
    file.write_text("")


def no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")


def too_long(file: Path) -> None:
    file.write_text(TEXT + "#" * (2 << 20))


def gone(file: Path) -> None:
    file.unlink()


def folder_gone(file: Path) -> None:
    file.unlink()
    file.parent.rmdir()


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def renamed(file: Path) -> None:
    file.write_text(TEXT.replace("name: gates", "name: doors").replace("max: 99", "max: 98"))


NO_HELP: dict[Callable[[Path], None], str] = {
    broken: "has faults (",
    cut: "has faults (",
    emptied: "has faults (",
    no_text: "has faults (",
    too_long: "has faults (",
    gone: "is gone",
    folder_gone: "is gone",
    a_folder: "cannot be read (Is a directory)",
    renamed: "now declares the pipeline doors",
}


@pytest.mark.parametrize("harm", NO_HELP, ids=lambda harm: harm.__name__)
def test_a_file_that_is_no_help_is_told_of_once_and_changes_nothing(file: Path, harm: Callable[[Path], None]) -> None:
    said: list[str] = []
    watch = DefinitionWatch(load_file(file), said.append)
    harm(file)
    assert [watch.changed() for _ in range(3)] == [False] * 3
    (told,) = said
    assert f"gates.yaml {NO_HELP[harm]}" in told
    assert "gates continues with the definition of its start" in told
    assert "\n" not in told
    if file.is_dir():
        file.rmdir()
    file.parent.mkdir(exist_ok=True)
    file.write_text(changed_text("the filter"))
    assert watch.changed()
    assert said == [told]


def test_a_fault_that_comes_again_is_told_of_again(file: Path) -> None:
    said: list[str] = []
    watch = DefinitionWatch(load_file(file), said.append)
    for _ in range(2):
        broken(file)
        assert not watch.changed()
        file.write_text(TEXT)
        assert not watch.changed()
    assert len(said) == 2


def test_a_changed_file_that_is_away_for_a_moment_is_still_changed(file: Path) -> None:
    watch = DefinitionWatch(load_file(file), lambda text: None)
    file.write_text(changed_text("the filter"))
    assert watch.changed()
    away = file.rename(file.with_suffix(".away"))
    assert not watch.changed()
    away.rename(file)
    assert watch.changed()


def test_a_file_moved_within_its_folder_is_followed(file: Path) -> None:
    said: list[str] = []
    watch = DefinitionWatch(load_file(file), said.append)
    moved = file.rename(file.with_name("renamed.yml"))
    assert not watch.changed()
    moved.write_text(changed_text("the filter"))
    assert watch.changed()
    assert said == []


def test_a_pipeline_that_came_from_no_file_never_changes(file: Path) -> None:
    assert not DefinitionWatch(replace(load_file(file), source_file="")).changed()


def test_a_folder_is_read_at_the_moments_after_each_change(tmp_path: Path, file: Path) -> None:
    watch = FolderWatch(tmp_path, (0, 15, 165))

    def read_at(*moments: float) -> list[float]:
        """Those of the moments at which it is due and then read."""
        due = []
        for moment in moments:
            if watch.is_due(moment):
                due.append(moment)
                watch.done(moment)
        return due

    assert read_at(100, 105) == []
    put(file, TEXT.replace("max: 99", "max: 98"))
    assert read_at(110, 115, 120, 125, 130, 270, 275, 280) == [110, 125, 275]
    (tmp_path / "other.yaml").write_text(TEXT)
    assert read_at(300, 305) == [300]
    # A change while others are due begins anew; what is no definition, or cannot be read, is none.
    file.unlink()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "notes.txt").write_text("none")
    assert read_at(310, 312, 330, 480, 490) == [310, 330, 480]
    # What could not be read stays due.
    (tmp_path / "other.yaml").unlink()
    assert watch.is_due(500)
    assert read_at(505, 510) == [505]


def test_a_folder_that_is_not_there_may_come(tmp_path: Path) -> None:
    watch = FolderWatch(tmp_path / "none", (0,))
    assert not watch.is_due(1)
    (tmp_path / "none").mkdir()
    assert not watch.is_due(2)
    (tmp_path / "none" / "a.yaml").write_text(TEXT)
    assert watch.is_due(3)
