"""The schema registry of the embedded stack: Apicurio, fetched and unpacked when it is first asked for.

    apicurio.xml ─► Ivy ─► sha256 ─► stage/… ─► <cache>/registry/<key>

Run manually: `python -m twofold.setup registry` (142 MB)
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from twofold.settings import cache_folder
from twofold.setup import jars
from twofold.setup.cache import cache_lock, publish, staging

_LIST = Path(__file__).with_name("apicurio.xml")


def ensure() -> Path:
    """Have the registry in the cache, whole; returns its folder."""
    cache, target = cache_folder(), _folder()
    with cache_lock(cache, "jars"):
        if not target.exists():
            fetched = jars.have(_LIST, cache)
            (archive,) = jars.listed(_LIST)
            with staging(cache, "registry") as stage:
                with tarfile.open(fetched / archive) as packed:
                    packed.extractall(stage / "unpacked", filter="data")
                publish(stage / "unpacked", target)
            shutil.rmtree(fetched)
    return target


def runner() -> Path:
    """The program's jar, or where it will be once fetched."""
    (archive,) = jars.listed(_LIST)
    return _folder() / f"{Path(archive).name.removesuffix('.tar.gz')}-runner.jar"


def _folder() -> Path:
    return cache_folder() / "registry" / jars.key(jars.listed(_LIST))
