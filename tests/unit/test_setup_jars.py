"""The list of jars: bytes other than the listed ones, and jars that are not listed, are never taken for a whole set."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from twofold.setup import jars

BYTES = b"as published"
SHA256 = hashlib.sha256(BYTES).hexdigest()
LIST = f"""
<ivy-module version="2.0" xmlns:e="http://ant.apache.org/ivy/extra"><dependencies>
  <dependency conf="spark" org="org.example" name="alpha_2.13" rev="1.0" transitive="false" e:sha256="{SHA256}"/>
  <dependency conf="kafka" org="org.example" name="beta" rev="2.0-1" transitive="false" e:sha256="{SHA256}"/>
</dependencies></ivy-module>
"""
ALPHA, BETA = "spark/alpha_2.13-1.0.jar", "kafka/beta-2.0-1.jar"
LISTED = {ALPHA: SHA256, BETA: SHA256}


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_list_is_read(tmp_path: Path) -> None:
    tmp_path.joinpath("ivy.xml").write_text(LIST)
    assert jars.listed(tmp_path / "ivy.xml") == LISTED


def test_the_shipped_list_is_exact_and_has_no_jar_twice_in_a_set() -> None:
    asked = [dependency.attrib for dependency in ElementTree.parse(jars.LIST).iter("dependency")]
    names = [(jar["conf"], jar["org"], jar["name"]) for jar in asked]
    assert len(set(names)) == len(names)
    assert {jar["conf"] for jar in asked} == {"spark", "kafka"}
    assert {jar["transitive"] for jar in asked} == {"false"}
    assert all(re.fullmatch(r"[\w.-]+", jar[part]) for jar in asked for part in ("org", "name", "rev"))
    assert all(re.fullmatch(r"[0-9a-f]{64}", sha256) for sha256 in jars.listed(jars.LIST).values())


def test_key_follows_content_not_order() -> None:
    assert jars.key(LISTED) == jars.key(dict(reversed(LISTED.items()))) != jars.key({**LISTED, BETA: "0" * 64})


@pytest.mark.parametrize("content", [BYTES[:-1], b"", BYTES[:-1] + b"D"])
def test_truncated_or_altered_jar_is_refused(tmp_path: Path, content: bytes) -> None:
    put(tmp_path / ALPHA, content)
    put(tmp_path / BETA, BYTES)
    (found,) = jars.damage(tmp_path, LISTED)
    assert "spark/alpha_2.13-1.0.jar has SHA-256" in found


def test_missing_jar_is_damage_and_so_is_one_too_many_and_a_whole_set_is_not(tmp_path: Path) -> None:
    put(tmp_path / ALPHA, BYTES)
    assert jars.damage(tmp_path, LISTED) == ["kafka/beta-2.0-1.jar is missing"]
    put(tmp_path / BETA, BYTES)
    assert jars.damage(tmp_path, LISTED) == []
    put(tmp_path / "spark" / "gamma-1.jar", BYTES)
    assert jars.damage(tmp_path, LISTED) == ["spark/gamma-1.jar is not listed"]
