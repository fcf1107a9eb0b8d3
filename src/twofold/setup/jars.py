"""All jars, from a list with checksums, by the Ivy that pyspark ships: no Maven, no address written down.

    jars.toml ─► ivy.xml ─► Ivy ─► stage/{spark,kafka} ─► sha256 ─► <cache>/jar-sets/<key>
                                                                         ▲
                                                      <cache>/jars ──────┘ (a link, swapped in one step)

`<key>` is a hash of the list, so a running program keeps the jars it started with when the list changes.

By hand: `python -m twofold.setup jars`
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

from twofold.settings import cache_folder
from twofold.setup.cache import locked, point, publish, staging
from twofold.setup.errors import SetupError
from twofold.setup.process import run

SETS = ("spark", "kafka")
_COORDINATE = re.compile(r"[\w.-]+:[\w.-]+:[\w.-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY_LENGTH = 16


@dataclass(frozen=True)
class Jar:
    """One jar of the list; `set` is the class path it belongs to."""

    set: str
    organisation: str
    name: str
    revision: str
    sha256: str

    @property
    def path(self) -> str:
        """Where it lies, below the folder of all jars."""
        return f"{self.set}/{self.name}-{self.revision}.jar"


def parse_list(text: str, names: Sequence[str] = SETS) -> tuple[Jar, ...]:
    """Read a list of jars with exactly these sets; raises SetupError naming every fault at once."""
    try:
        sets = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SetupError(f"the list of jars is not TOML: {error}") from error
    faults = list(_faults(sets, names))
    if faults:
        raise SetupError("the list of jars has faults:\n" + "\n".join(f"  {fault}" for fault in faults))
    return tuple(_jar(name, coordinate, sha256) for name in names for coordinate, sha256 in sets[name].items())


def _jar(set_name: str, coordinate: str, sha256: str) -> Jar:
    organisation, name, revision = coordinate.split(":")
    return Jar(set_name, organisation, name, revision, sha256)


def _faults(sets: dict[str, dict[str, str]], names: Sequence[str]) -> Iterable[str]:
    if set(sets) != set(names):
        yield f"sets are {sorted(sets)}, expected {sorted(names)}"
    for name, jars in sets.items():
        for coordinate, sha256 in jars.items():
            if not _COORDINATE.fullmatch(coordinate):
                yield f"{name}: {coordinate!r} is not organisation:name:revision"
            if not _SHA256.fullmatch(sha256):
                yield f"{name}: {coordinate}: {sha256!r} is not a SHA-256 in lower-case hex"


def key(jars: Iterable[Jar]) -> str:
    """A name for exactly these jars, whatever their order."""
    lines = sorted(f"{jar.path} {jar.sha256}" for jar in jars)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_KEY_LENGTH]


def damage(folder: Path, jars: Iterable[Jar]) -> list[str]:
    """What is wrong with the jars in `folder`: missing ones, and ones with other bytes than listed."""
    found = []
    for jar in jars:
        path = folder / jar.path
        if not path.is_file():
            found.append(f"{jar.path} is missing")
        elif (sha256 := _sha256(path)) != jar.sha256:
            found.append(f"{jar.path} has SHA-256 {sha256}, expected {jar.sha256}")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ivy_module(jars: Collection[Jar]) -> str:
    """The list as an Ivy module: one configuration per set, nothing transitive."""
    module = ElementTree.Element("ivy-module", version="2.0")
    ElementTree.SubElement(module, "info", organisation="twofold", module="jars")
    configurations = ElementTree.SubElement(module, "configurations")
    for name in dict.fromkeys(jar.set for jar in jars):
        ElementTree.SubElement(configurations, "conf", name=name)
    dependencies = ElementTree.SubElement(module, "dependencies")
    for jar in jars:
        where = {"org": jar.organisation, "name": jar.name, "rev": jar.revision}
        ElementTree.SubElement(dependencies, "dependency", where, conf=f"{jar.set}->default", transitive="false")
    return ElementTree.tostring(module, encoding="unicode")


def ivy_settings() -> str:
    """Ivy's default repository, jars only: reading each POM and its parents takes three times as long."""
    settings = ElementTree.Element("ivysettings")
    ElementTree.SubElement(settings, "settings", defaultResolver="central")
    # Its own checksums come from where the jars come from and prove nothing that ours does not.
    ElementTree.SubElement(settings, "property", name="ivy.checksums", value="")
    resolvers = ElementTree.SubElement(settings, "resolvers")
    ElementTree.SubElement(resolvers, "ibiblio", name="central", m2compatible="true", usepoms="false")
    return ElementTree.tostring(settings, encoding="unicode")


def ensure_jars() -> Path:
    """Have all jars in the cache, whole; returns the folder that holds `spark/` and `kafka/`."""
    jars = parse_list(resources.files("twofold.setup").joinpath("jars.toml").read_text())
    cache = cache_folder()
    with locked(cache, "jars"):
        target = have(jars, cache)
        point(cache / "jars", target)
    return target


def have(jars: tuple[Jar, ...], cache: Path) -> Path:
    """Have these jars in the cache, whole; call it with the cache's lock `jars` held."""
    target = cache / "jar-sets" / key(jars)
    if damage(target, jars):
        _fetch(jars, cache, target)
    return target


def _fetch(jars: tuple[Jar, ...], cache: Path, target: Path) -> None:
    with staging(cache, "jars") as stage:
        made = stage / "jars"
        log = cache / "ivy.log"
        run(_ivy_command(jars, stage, made), f"fetching {len(jars)} jars", log, _NETWORK)
        found = damage(made, jars)
        if found:
            raise SetupError("jars are not the listed ones:\n" + "\n".join(f"  {line}" for line in found), _NETWORK)
        publish(made, target)


_NETWORK = "check the network and run `make setup` again; nothing half-fetched is kept"


def _ivy_command(jars: Collection[Jar], stage: Path, made: Path) -> list[str | Path]:
    """Ivy's own cache lies in the stage too: a cache shared with Maven or another Ivy spoils both."""
    module, settings = stage / "ivy.xml", stage / "ivysettings.xml"
    module.write_text(ivy_module(jars))
    settings.write_text(ivy_settings())
    pattern = f"{made}/[conf]/[artifact]-[revision].[ext]"
    cache = [f"-Divy.default.ivy.user.dir={stage / 'ivy'}", f"-Divy.cache.dir={stage / 'ivy'}"]
    return ["java", *cache, "-jar", _ivy_jar(), "-settings", settings, "-ivy", module, "-retrieve", pattern]


def _ivy_jar() -> Path:
    """The Ivy that pyspark ships, found without importing pyspark."""
    spec = importlib.util.find_spec("pyspark")
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    found = [jar for folder in folders for jar in Path(folder).glob("jars/ivy-*.jar")]
    if not found:
        raise SetupError("pyspark, or its jars/ folder, is not installed", "run `make setup`")
    return found[0]
