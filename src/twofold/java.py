"""The one Java that everything runs on: Spark's JVM, ZooKeeper and Kafka.

JAVA_HOME, where it is set, else the `java` of the PATH; as Spark's own scripts look for it, but with a sentence where
it cannot be used.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from twofold.errors import TwofoldError

OLDEST = 17
_RELEASE = re.compile(r'^JAVA_VERSION="?(?:1\.)?(\d+)', re.MULTILINE)
_SAID = re.compile(r' version "(?:1\.)?(\d+)')


def find(environment: Mapping[str, str] | None = None) -> Path:
    """The program `java`; TwofoldError naming the variable where there is none, or one that is too old."""
    given = os.environ if environment is None else environment
    home = given.get("JAVA_HOME", "")
    if home:
        return _checked(Path(home, "bin", "java"), f"JAVA_HOME is {home}", "unset it or point it to a Java 17")
    found = shutil.which("java", path=given.get("PATH", os.defpath))
    if found is None:
        raise TwofoldError(
            "there is no `java` in a folder of PATH", "install a Java 17 (`make setup` does), or point JAVA_HOME to one"
        )
    return _checked(Path(found), f"PATH leads to {found}", "put a Java 17 first, or point JAVA_HOME to one")


def _checked(program: Path, where: str, remedy: str) -> Path:
    if not os.access(program, os.X_OK):
        raise TwofoldError(f"{where}, which has no bin/java", remedy)
    version = _version(program.resolve())
    if version < OLDEST:
        raise TwofoldError(f"{where}, which is a Java {version}" if version else f"{where}, which is no Java", remedy)
    return program


@cache
def _version(program: Path) -> int:
    """Its feature number, 0 where it tells none. Every JDK and JRE has it in a file, which is quicker than to ask."""
    release = program.parents[1] / "release"
    if release.is_file() and (found := _RELEASE.search(release.read_text(errors="replace"))):
        return int(found[1])
    try:
        asked = subprocess.run([program, "-version"], capture_output=True, text=True, errors="replace", check=False)
    except OSError:  # not for this machine, or no program at all
        return 0
    found = _SAID.search(asked.stderr)
    return int(found[1]) if found else 0
