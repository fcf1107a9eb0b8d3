"""The wheel has all that an installed Twofold needs: packages, and the folders that are no packages."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SHIPPED = ("dags", "plugins", "monitoring", "docs/runbooks")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel, built from what is committed or about to be."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], check=True, capture_output=True, text=True
    )
    for name in filter(lambda name: Path(name).is_file(), listed.stdout.splitlines()):
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes(Path(name).read_bytes())
    # As pip calls it, but for half a second of pip's own.
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=folder / "tree", check=True, stdout=subprocess.DEVNULL)
    [wheel] = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("folder", SHIPPED)
def test_a_folder_is_shipped_whole(folder: str, names: set[str]) -> None:
    listed = subprocess.run(["git", "ls-files", folder], check=True, capture_output=True, text=True).stdout.splitlines()
    wanted = {name for name in listed if Path(name).is_file() and not name.startswith("monitoring/prometheus/tests/")}
    shipped = {name.partition("/data/share/twofold/")[2] for name in names}
    assert wanted - shipped == set()


@pytest.mark.parametrize("package", ["src/twofold", "producer", "spark_jobs", "containers"])
def test_every_module_of_the_packages_is_in_the_wheel(package: str, names: set[str]) -> None:
    modules = {
        str(file.relative_to("src") if package.startswith("src/") else file) for file in Path(package).rglob("*.py")
    }
    assert modules - names == set()
