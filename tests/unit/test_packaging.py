"""The distribution: every package is listed, locks name no index, and no part grows past its size."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LONGEST_CORE = 27_450
"""Lines of src/twofold, as many as there are, rounded up."""


def test_every_package_is_listed() -> None:
    """An editable install works without one that is not listed, an image does not."""
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


@pytest.mark.parametrize(
    ("lock", "programs"),
    [
        ("producer/requirements.txt", ("producer", "containers.supervised", "containers.healthcheck")),
        ("requirements/containers.txt", ("producer", "spark_jobs", "containers", "twofold_airflow")),
    ],
    ids=["producer", "all others"],
)
def test_an_image_has_what_its_programs_import(lock: str, programs: tuple[str, ...]) -> None:
    """The developer's environment has everything, so nothing but an image would tell."""
    ours = ("twofold", "producer", "spark_jobs", "containers", "twofold_airflow")
    graph = grimp.build_graph(*ours, include_external_packages=True, cache_dir=None)
    begun = {module for module in graph.modules for name in programs if f"{module}.".startswith(f"{name}.")}
    reached = begun.union(*(graph.find_upstream_modules(module) for module in begun))
    of_module = packages_distributions()
    imported = {canonicalize_name(each) for module in reached for each in of_module.get(module.split(".")[0], ())}
    pins = re.findall(r"^([\w.-]+)(?:\[.*\])?==", (ROOT / lock).read_text(), re.MULTILINE)
    assert imported - set(map(canonicalize_name, pins)) - {"twofold"} == set()


def test_no_module_is_too_long_and_the_core_does_not_grow() -> None:
    """What more is wanted makes its room first, or raises the number with the reason in its commit."""
    lines = {
        file: len(file.read_text().splitlines())
        for folder in ("src/twofold", "producer", "spark_jobs", "plugins", "containers", "monitoring")
        for file in (ROOT / folder).rglob("*.py")
    }
    assert [str(file) for file, count in lines.items() if count > 500] == []
    core = sum(count for file, count in lines.items() if file.is_relative_to(ROOT / "src/twofold"))
    assert core <= LONGEST_CORE, (
        "see AGENTS.md for what is where; perhaps a library does it, or a function that is there"
    )
