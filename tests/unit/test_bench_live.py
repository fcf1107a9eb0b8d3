"""How the live benchmark counts: whole process trees while they run; and a rival's statements."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import data, flink
from benchmarks.measure import BenchFailure, serving, until
from twofold.setup import jars

BURN_S = 0.2
GIVE_UP_S = 60.0
BURN = f"import sys, time\nwhile time.process_time() < {BURN_S}: pass\n"
ONE_ENDS_ONE_STAYS = f"""
import subprocess, sys, threading
burn = {BURN!r}
subprocess.run([sys.executable, "-c", burn], check=True)
subprocess.Popen([sys.executable, "-c", burn + "open(sys.argv[1], 'w').close(); sys.stdin.read()", sys.argv[1]],
                 stdin=subprocess.PIPE)
threading.Event().wait()
"""


def test_a_running_tree_is_counted_with_what_has_ended_and_what_goes_on(tmp_path: Path) -> None:
    burnt = tmp_path / "burnt"
    with serving([sys.executable, "-c", ONE_ENDS_ONE_STAYS, str(burnt)], tmp_path / "said") as job:
        until(burnt.exists, "the second child's work", GIVE_UP_S)
        assert job.cpu_s() >= 2 * BURN_S
        before = job.cpu_s()
        assert job.cpu_s() - before < BURN_S


def test_a_job_that_ends_by_itself_is_told_with_its_own_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no such broker')"]
    with serving(command, tmp_path / "said") as job, pytest.raises(BenchFailure, match="no such broker"):
        until(lambda: job.cpu_s() < 0, "nothing: it ends", GIVE_UP_S)


def test_records_of_two_files_are_those_of_one(tmp_path: Path) -> None:
    whole, first, second = (tmp_path / name for name in ("whole", "first", "second"))
    data.write(whole, 30)
    for target, count, begin in ((first, 10, 0), (second, 20, 10)):
        data.write(target, count, begin, data.TWO_DAYS_US // 30)
    assert first.read_bytes() + second.read_bytes() == whole.read_bytes()
    assert first.read_bytes().count(b"\n") == 10


def test_the_rivals_statements_are_whole_and_filled_in() -> None:
    named = {"servers": "s", "topic": "t", "group": "g", "folder": "/f"}
    statements = flink.statements(named)
    assert [one.split()[0] for one in statements] == ["CREATE"] * 5 + ["INSERT"] * 2
    assert not any(mark in one for one in statements for mark in ("{", "}", "--"))
    assert "TABLE distinct_events" in statements[-1]


def test_the_rivals_jars_are_a_list_with_checksums() -> None:
    listed = jars.listed(flink.LIST)
    assert [path.split("/")[0] for path in listed] == ["job", "lib"]
    assert {len(sha256) for sha256 in listed.values()} == {64}
