"""YAML text ─► plain values, and the line of every key and value; anything wrong becomes a fault with its line.

YAML 1.2: `no` and `on` are text. Numbers with a fraction become `Decimal`, so that decimal bounds stay exact; dates
stay text, for the field's type says how to read them.
"""

from __future__ import annotations

import pathlib
from decimal import Decimal, InvalidOperation
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from twofold.definition.fault import Path, Place, Report, shortened

MAX_FILE_BYTES = 1 << 20
_MAX_VALUES = 20_000
_MAX_DEPTH = 50
_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = {f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}merge", f"{_TAG}value"}


def read_document(file: pathlib.Path, report: Report) -> dict[str, Any] | None:
    """Read one definition; fills `report.places`. None if there is no mapping to go on with."""
    text = _read_text(file, report)
    node = _compose(text, report) if text is not None else None
    if node is None:
        return None
    if not isinstance(node, MappingNode):
        report.add((), "no mapping at the top", "keys such as `name:` and `event:`")
        return None
    places: dict[Path, Place] = {}
    report.places = places
    document = _Reader(report, places).value(node, ())
    return document if isinstance(document, dict) else None


def _read_text(file: pathlib.Path, report: Report) -> str | None:
    try:
        content = file.read_bytes()
    except OSError as error:
        remedy = "check the path" if isinstance(error, FileNotFoundError) else "check the file and its permissions"
        report.add((), f"{(error.strerror or str(error)).lower()}", "a readable file", remedy)
        return None
    if len(content) > MAX_FILE_BYTES:
        report.add((), f"{len(content)} bytes", f"at most {MAX_FILE_BYTES} bytes")
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        report.add((), f"bytes that are not UTF-8 at byte {error.start}", "text in UTF-8", line=line)
        return None


def _compose(text: str, report: Report) -> Node | None:
    """The node tree of the only document in `text`."""
    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = min(mark.line + 1, len(text.splitlines())) if mark else 1
        report.add((), shortened(error.problem or "broken YAML", 100), "valid YAML", _yaml_hint(error), line=line)
        return None
    except (YAMLError, ValueError, RecursionError) as error:
        report.add((), shortened(str(error) or "broken YAML", 100), "valid YAML")
        return None
    if node is None:
        report.add((), "an empty file", "a pipeline definition")
    return node


def _yaml_hint(error: MarkedYAMLError) -> str:
    problem = error.problem or ""
    if "'\\t'" in problem:
        return "indent with spaces, not tabs"
    if "another document" in problem:
        return "one pipeline per file"
    return shortened(str(error.context or ""), 100)


class _Reader:
    """Turns nodes into values, noting places and faults on the way."""

    def __init__(self, report: Report, places: dict[Path, Place]) -> None:
        self.report = report
        self.places = places
        self.values = 0

    def value(self, node: Node, path: Path) -> object:
        """The plain value of a node; None where it cannot be had, with a fault saying why."""
        self.places.setdefault(path, Place(node.start_mark.line + 1, node.start_mark.line + 1))
        self.values += 1
        if len(path) > _MAX_DEPTH or self.values > _MAX_VALUES:
            if not self.report.has(()):
                self.report.add((), "a file nested or grown through aliases beyond reason", "a plain definition")
            return None
        match node:
            case MappingNode():
                return self._mapping(node, path)
            case SequenceNode():
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            case _:
                return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in mapping:
                first = self.places[(*path, key)].key_line
                line, hint = key_node.start_mark.line + 1, f"line {first} has it already"
                self.report.add((*path, key), f'the key "{shortened(key)}" again', "each key once", hint, line=line)
                continue
            self.places[(*path, key)] = _place(key_node, value_node)
            mapping[key] = self.value(value_node, (*path, key))
        return mapping

    def _key(self, node: Node, path: Path) -> str | None:
        if isinstance(node, ScalarNode) and str(node.tag) == f"{_TAG}str" and _is_unicode(str(node.value)):
            return str(node.value)
        line = node.start_mark.line + 1
        found = f"the key {shortened(str(node.value))}" if isinstance(node, ScalarNode) else "a key that is not text"
        self.report.add(path, found, "a key of plain text", "quote it", line=line)
        return None

    def _scalar(self, node: Node, path: Path) -> object:
        tag, text = str(node.tag), str(node.value)
        try:
            match tag.removeprefix(_TAG):
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    return _integer(text)
                case "float":
                    return Decimal(text.replace("_", "").replace(".inf", "Infinity").replace(".nan", "NaN"))
        except (ValueError, InvalidOperation):
            return text
        if tag not in _TEXT_TAGS:
            self.report.add(path, f"the tag {shortened(tag)}", "a plain value", "remove the tag")
            return None
        if not _is_unicode(text):
            self.report.add(path, "half a character (a surrogate)", "text in Unicode")
            return None
        return text


def _place(key: Node, value: Node) -> Place:
    """An absent value has the place of what follows it; its key says better where to look."""
    key_line = key.start_mark.line + 1
    absent = isinstance(value, ScalarNode) and not value.value and not value.style
    return Place(key_line, key_line if absent else value.start_mark.line + 1)


def _is_unicode(text: str) -> bool:
    """False for escapes such as `\\ud800`, which no encoding can write."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _integer(text: str) -> int:
    """Decimal, or `0x…`, `0o…`; anything odder stays text."""
    return int(text.replace("_", ""), 0) if text.lower().lstrip("+-").startswith("0") else int(text.replace("_", ""))
