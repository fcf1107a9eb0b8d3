"""The list of jars: what it refuses, and that bytes other than the listed ones are never taken for a whole set."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import pytest

from twofold.setup import jars
from twofold.setup.errors import SetupError
from twofold.setup.jars import Jar

BYTES = b"as published"
SHA256 = hashlib.sha256(BYTES).hexdigest()
LIST = f"""
[spark]
"org.example:alpha_2.13:1.0" = "{SHA256}"
[kafka]
"org.example:beta:2.0-1" = "{SHA256}"
"""


def put(folder: Path, jar: Jar, content: bytes) -> None:
    path = folder / jar.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_list_is_read() -> None:
    assert jars.parse_list(LIST) == (
        Jar("spark", "org.example", "alpha_2.13", "1.0", SHA256),
        Jar("kafka", "org.example", "beta", "2.0-1", SHA256),
    )


def test_all_faults_of_a_list_are_named_at_once() -> None:
    with pytest.raises(SetupError) as raised:
        jars.parse_list('[spark]\n"org.example:alpha" = "abc"\n')
    message = str(raised.value)
    assert "sets are ['spark']" in message
    assert "'org.example:alpha' is not organisation:name:revision" in message
    assert "'abc' is not a SHA-256" in message


def test_the_shipped_list_has_no_jar_twice_in_a_set() -> None:
    listed = jars.parse_list(resources.files("twofold.setup").joinpath("jars.toml").read_text())
    names = [(jar.set, jar.organisation, jar.name) for jar in listed]
    assert len(set(names)) == len(names)


def test_key_follows_content_not_order() -> None:
    alpha, beta = jars.parse_list(LIST)
    changed = Jar(beta.set, beta.organisation, beta.name, beta.revision, "0" * 64)
    assert jars.key([alpha, beta]) == jars.key([beta, alpha]) != jars.key([alpha, changed])


@pytest.mark.parametrize("content", [BYTES[:-1], b"", BYTES[:-1] + b"D"])
def test_truncated_or_altered_jar_is_refused(tmp_path: Path, content: bytes) -> None:
    alpha, beta = jars.parse_list(LIST)
    put(tmp_path, alpha, content)
    put(tmp_path, beta, BYTES)
    (found,) = jars.damage(tmp_path, [alpha, beta])
    assert "spark/alpha_2.13-1.0.jar has SHA-256" in found


def test_missing_jar_is_damage_and_a_whole_set_is_not(tmp_path: Path) -> None:
    alpha, beta = jars.parse_list(LIST)
    put(tmp_path, alpha, BYTES)
    assert jars.damage(tmp_path, [alpha, beta]) == ["kafka/beta-2.0-1.jar is missing"]
    put(tmp_path, beta, BYTES)
    assert jars.damage(tmp_path, [alpha, beta]) == []


def test_ivy_is_asked_for_exactly_the_list() -> None:
    module = ElementTree.fromstring(jars.ivy_module(jars.parse_list(LIST)))
    asked = [dict(dependency.attrib) for dependency in module.iter("dependency")]
    assert [(one["org"], one["name"], one["rev"], one["conf"]) for one in asked] == [
        ("org.example", "alpha_2.13", "1.0", "spark->default"),
        ("org.example", "beta", "2.0-1", "kafka->default"),
    ]
    assert {one["transitive"] for one in asked} == {"false"}
