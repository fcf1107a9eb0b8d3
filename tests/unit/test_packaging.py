"""The distribution ships every package: an editable install works without one that is not listed, an image does not."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    homes = {"twofold": ROOT / "src", "producer": ROOT, "spark_jobs": ROOT, "containers": ROOT}
    found = {
        ".".join(marker.parent.relative_to(home).parts)
        for name, home in homes.items()
        for marker in (home / name).rglob("__init__.py")
    }
    assert sorted(settings["packages"]) == sorted(found)


def test_locks_name_no_index() -> None:
    locks = [*(ROOT / "requirements").glob("*.txt"), ROOT / "src/twofold/setup/go.txt"]
    assert [lock.name for lock in locks if "://" in lock.read_text() or "--index" in lock.read_text()] == []
