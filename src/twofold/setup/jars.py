"""All jars, from a list with checksums, by the Ivy that pyspark ships: no Maven, no address written down.

    ivy.xml ─► Ivy ─► stage/{spark,kafka} ─► sha256 ─► <cache>/jar-sets/<key>
                                                                ▲
                                             <cache>/jars ──────┘ (a link, swapped in one step)

`<key>` is a hash of the list, so a running program keeps the jars it started with when the list changes.

The schema registry, an archive, is fetched in the same way when it is first asked for, and unpacked:

    apicurio.xml ─► Ivy ─► sha256 ─► stage/unpacked ─► <cache>/registry/<key>

Run manually: `python -m twofold.setup jars`, or `registry` (142 MB)
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from pathlib import Path
from xml.etree import ElementTree

from twofold.launch import find_java, spark_home
from twofold.settings import cache_folder
from twofold.setup.cache import SetupError, cache_lock, point, publish, run, staging

LIST = Path(__file__).with_name("ivy.xml")
_REGISTRY = Path(__file__).with_name("apicurio.xml")
_SETTINGS = Path(__file__).with_name("ivysettings.xml")
_SHA256 = "{http://ant.apache.org/ivy/extra}sha256"
_NETWORK = "check the network and run `make setup` again; nothing half-fetched is kept"


def ensure_jars() -> Path:
    """Have all jars in the cache, whole; returns the folder that holds `spark/` and `kafka/`."""
    cache = cache_folder()
    with cache_lock(cache, "jars"):
        target = have(LIST, cache)
        point(cache / "jars", target)
    return target


def ensure_registry() -> Path:
    """Have the registry in the cache, whole; returns its folder."""
    cache, target = cache_folder(), _registry_folder()
    with cache_lock(cache, "jars"):
        if not target.exists():
            fetched = have(_REGISTRY, cache)
            (archive,) = listed(_REGISTRY)
            with staging(cache, "registry") as stage:
                with tarfile.open(fetched / archive) as packed:
                    packed.extractall(stage / "unpacked", filter="data")
                publish(stage / "unpacked", target)
            shutil.rmtree(fetched)
    return target


def registry_runner() -> Path:
    """The registry's jar, or where it will be once fetched."""
    (archive,) = listed(_REGISTRY)
    return _registry_folder() / f"{Path(archive).name.removesuffix('.tar.gz')}-runner.jar"


def _registry_folder() -> Path:
    return cache_folder() / "registry" / key(listed(_REGISTRY))


def have(module: Path, cache: Path) -> Path:
    """Have the jars of an Ivy module in the cache, whole; call it with the cache's lock `jars` held."""
    jars = listed(module)
    target = cache / "jar-sets" / key(jars)
    if not damage(target, jars):
        return target
    with staging(cache, "jars") as stage:
        made = stage / "jars"
        run(_ivy(module, stage, made), f"fetching {len(jars)} jars", cache / "ivy.log", _NETWORK)
        if found := damage(made, jars):
            raise SetupError("jars are not the listed ones:\n" + "\n".join(f"  {line}" for line in found), _NETWORK)
        publish(made, target)
    return target


def listed(module: Path) -> dict[str, str]:
    """Where each jar of an Ivy module lies below the folder of all, `<conf>/<name>-<rev>.jar`, and its SHA-256.

    An archive that is no jar says so in an `artifact` of its own.
    """
    found = {}
    for dependency in ElementTree.parse(module).iter("dependency"):
        jar, artifact = dependency.attrib, dependency.find("artifact")
        ending = "jar" if artifact is None else artifact.attrib["ext"]
        found[f"{jar['conf']}/{jar['name']}-{jar['rev']}.{ending}"] = jar.get(_SHA256, "")
    return found


def key(jars: dict[str, str]) -> str:
    """A name for exactly these jars, whatever their order."""
    lines = sorted(f"{path} {sha256}" for path, sha256 in jars.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def damage(folder: Path, jars: dict[str, str]) -> list[str]:
    """What is wrong with the jars in `folder`: missing ones, ones that are not listed, and other bytes than listed."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file()}
    found = [f"{path} is not listed" for path in sorted(there - jars.keys())]
    for path, expected in jars.items():
        if path not in there:
            found.append(f"{path} is missing")
        elif (sha256 := _sha256(folder / path)) != expected:
            found.append(f"{path} has SHA-256 {sha256}, expected {expected}")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ivy(module: Path, stage: Path, made: Path) -> list[str | Path]:
    """Ivy's own cache lies in the stage too: a cache shared with Maven or another Ivy spoils both."""
    (ivy,) = (spark_home() / "jars").glob("ivy-*.jar")
    cache = [f"-Divy.default.ivy.user.dir={stage / 'ivy'}", f"-Divy.cache.dir={stage / 'ivy'}"]
    pattern = f"{made}/[conf]/[artifact]-[revision].[ext]"
    return [find_java(), *cache, "-jar", ivy, "-settings", _SETTINGS, "-ivy", module, "-retrieve", pattern]
