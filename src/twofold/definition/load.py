"""Pipeline files ─► `Pipeline`, or all their faults at once.

    file ─► values and their lines ─► keys (types) ─► rules (what belongs together, expressions) ─► Pipeline
                  └─────────────────────┴── faults ─────┘

YAML 1.2: `no` and `on` are text. Numbers with a fraction become `Decimal`, so that decimal bounds stay exact; dates
stay text, for the field's type says how to read them. Manually: `twofold check pipelines/flights.yaml`.
"""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.resolver import Resolver
from ruamel.yaml.scanner import Scanner, ScannerError

from twofold.definition.fault import Fault, KeyPath, Report, near_miss, shortened
from twofold.definition.keys import read_section
from twofold.definition.model import Pipeline
from twofold.definition.rules import check_whole
from twofold.errors import DefinitionError, UsageError
from twofold.settings import Settings
from twofold.text import counted

SUFFIXES = (".yaml", ".yml")
MAX_FILE_BYTES = 1 << 20
_MAX_VALUES = 20_000
_MAX_DEPTH = 50
_TAG = "tag:yaml.org,2002:"
_RULES = Resolver()
"""What the texts of YAML 1.2 mean, without a tag."""
_REMEDY = "check the path and its permissions, and put a file in its place, or a link to one"
_OTHER_FOLDER = "name the folder of pipeline files with --pipelines or TWOFOLD_PIPELINES"


def check_file(path: Path) -> tuple[Pipeline | None, list[Fault]]:
    """Read one definition; the pipeline, or None and every fault, sorted by line."""
    report = Report(shown_path(path))
    document = read_document(path, report)
    pipeline = None
    if document is not None:
        declared = read_section(Pipeline, document, (), report, source_file=str(path.absolute()))
        pipeline = check_whole(declared, report)
    return pipeline if not report.faults else None, sorted(set(report.faults))


def load_file(path: Path) -> Pipeline:
    """Read one definition; raises DefinitionError listing every fault."""
    pipeline, faults = check_file(path)
    if pipeline is None:
        raise definition_error(faults)
    return pipeline


def definition_files(folder: Path) -> list[Path]:
    """The definitions in a folder, sorted; UsageError if there is no such folder, or it cannot be read."""
    try:
        return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
    except OSError as error:
        raise UsageError(f"no folder {folder}: {(error.strerror or str(error)).lower()}", _OTHER_FOLDER) from error


def definition_bytes(file: Path) -> bytes:
    """What a file holds, as far as a definition can go: a longer one is at fault.

    OSError where it is no regular file: a pipe would be waited for, and a device may have no end.
    """
    with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError(errno.ENXIO, "No regular file")
        return opened.read(MAX_FILE_BYTES + 1)


def clashes(files: Sequence[tuple[Path, Pipeline]]) -> list[Fault]:
    """Faults of files that are sound each by itself, but claim the same pipeline name or the same topic.

    Kafka names its metrics after topics, with `_` for each dot, so it refuses a topic beside another that differs in
    nothing else.
    """
    faults = []
    seen: dict[tuple[str, str], tuple[Path, str]] = {}
    for path, pipeline in files:
        for key, value, taken_for in (
            ("name", pipeline.name, pipeline.name),
            ("topic", pipeline.topic.name, pipeline.topic.name.replace(".", "_")),
        ):
            first, other = seen.setdefault((key, taken_for), (path, value))
            if first is not path:
                has = "has too" if other == value else f'has as "{other}": Kafka takes `.` and `_` in topics for one'
                found = f'"{value}", which {shown_path(first)} {has}'
                report = Report(shown_path(path))
                read_document(path, report)
                faults.append(Fault(report.file, report.lines((key,))[1], key, found, f"a {key} of its own"))
    return faults


def load_all(folder: Path) -> dict[str, Pipeline]:
    """Every pipeline of a folder by name; raises DefinitionError listing every fault of every file."""
    sound, faults = load_sound(folder)
    if faults:
        raise definition_error(faults)
    return sound


def load_sound(folder: Path) -> tuple[dict[str, Pipeline], list[Fault]]:
    """The pipelines of a folder that can run, by name, and every fault of the other files.

    Two files that claim one name are both refused, as `load_pipeline` refuses that name; of two that claim one topic
    the second is.
    """
    checked = [(path, *check_file(path)) for path in definition_files(folder)]
    whole = [(path, pipeline) for path, pipeline, _ in checked if pipeline is not None]
    claims = clashes(whole)
    at_fault = {fault.file for fault in claims}
    refused = {pipeline.name for path, pipeline in whole if shown_path(path) in at_fault}
    sound = {pipeline.name: pipeline for _, pipeline in whole if pipeline.name not in refused}
    return sound, [fault for _, _, found in checked for fault in found] + claims


def load_pipeline(settings: Settings, name: str) -> Pipeline:
    """The pipeline `name` of the settings' folder. Faults in other files do not stand in its way.

    Raises UsageError when no file declares it, DefinitionError when its own file has faults.
    """
    sound, faults = load_sound(settings.pipelines)
    if name in sound:
        return sound[name]
    own = {shown_path(path) for path in definition_files(settings.pipelines) if _claims(path, name)}
    if claimed := [fault for fault in faults if fault.file in own]:
        raise definition_error(claimed)
    known = f"known: {', '.join(sorted(sound))}" if sound else "it holds no sound definition"
    hint = near_miss(name, sound) or known
    raise UsageError(f'no pipeline "{name}" in {shown_path(settings.pipelines)} ({hint})', _OTHER_FOLDER)


def definition_error(faults: Iterable[Fault]) -> DefinitionError:
    """All faults as one error."""
    listed = list(faults)
    lines = "".join(f"\n  {fault}" for fault in listed)
    said = f"{counted(len(listed), 'fault')}:{lines}"
    return DefinitionError(said, "fix the definition; `twofold check` lists what is left")


def _claims(path: Path, name: str) -> bool:
    """Whether a file with faults is the one meant by `name`: it says so, or is called so."""
    document = read_document(path, Report(str(path))) or {}
    return name in (document.get("name"), path.stem)


def shown_path(path: Path) -> str:
    """Relative to the working folder where it lies below it."""
    here = Path.cwd()
    return str(path.absolute().relative_to(here)) if path.absolute().is_relative_to(here) else str(path)


def read_document(file: Path, report: Report) -> dict[str, Any] | None:
    """Read one definition; fills `report.places`. None if the file is no mapping."""
    text = _read_text(file, report)
    node = _compose(text, report) if text is not None else None
    if node is None:
        return None
    if not isinstance(node, MappingNode):
        report.add((), "no mapping at the top", "keys such as `name:` and `event:`")
        return None
    document = _Document(report).value(node, ())
    return document if isinstance(document, dict) else None


def _read_text(file: Path, report: Report) -> str | None:
    try:
        content = definition_bytes(file)
        size = max(len(content), file.stat().st_size)
    except OSError as error:
        report.add((), (error.strerror or str(error)).lower(), "a readable file", _REMEDY)
        return None
    if size > MAX_FILE_BYTES:
        report.add((), f"{size} bytes", f"at most {MAX_FILE_BYTES} bytes")
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        report.add((), f"bytes that are not UTF-8 at byte {error.start}", "text in UTF-8", line=line)
        return None


class _Scanner(Scanner):
    """Of YAML 1.2 alone: in other versions `yes`, `010` and `1:30` mean something else."""

    def scan_yaml_directive_value(self, start_mark: Any) -> Any:  # noqa: ANN401
        """Of a line `%YAML 1.1`; without one, it is 1.2."""
        version = super().scan_yaml_directive_value(start_mark)
        if version != (1, 2):
            raise ScannerError(None, None, "%YAML {}.{}".format(*version), start_mark)
        return version


def _compose(text: str, report: Report) -> Node | None:
    """The node tree of the only document in `text`."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _Scanner
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)
            node: Node | None = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = min(mark.line + 1, len(text.splitlines())) if mark else 1
        problem = error.problem or "broken YAML"
        hint = shortened(str(error.context or ""), 100)
        if "'\\t'" in problem:
            hint = "indent with spaces, not tabs"
        elif "another document" in problem:
            hint = "one pipeline per file"
        elif problem.startswith("%YAML"):
            hint = "files are YAML 1.2: remove this line"
        report.add((), shortened(problem, 100), "valid YAML", hint, line=line)
        return None
    except (YAMLError, ValueError, RecursionError) as error:
        report.add((), shortened(str(error) or "broken YAML", 100), "valid YAML")
        return None
    if node is None:
        report.add((), "an empty file", "a pipeline definition")
    return node


class _Document:
    """Turns nodes into values, noting lines and faults on the way.

    ruamel's round-trip loader, which knows lines too, ends at the first key that stands twice, merges `<<`, and reads
    numbers as binary floats and dates as objects.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.values = 0

    def value(self, node: Node, path: KeyPath) -> object:
        """The plain value of a node; None where it cannot be had, with a fault saying why."""
        self.report.places.setdefault(path, (_line(node), _line(node)))
        self.values += 1
        if len(path) > _MAX_DEPTH or self.values > _MAX_VALUES:
            if not self.report.has(()):
                self.report.add((), "a file nested or grown through aliases beyond reason", "a plain definition")
            return None
        if not _has_plain_tag(node):
            self.report.add(path, f"the tag {shortened(str(node.tag))}", "a plain value", "remove the tag")
            return None
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        """The entries of a mapping whose keys are text and stand there for the first time."""
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*path, key)
            if not isinstance(key_node, ScalarNode) or str(key_node.tag) != f"{_TAG}str" or not _is_unicode(key):
                what = f"the key {shortened(key)}" if isinstance(key_node, ScalarNode) else "a key that is not text"
                self.report.add(path, what, "a key of plain text", "quote it", line=_line(key_node))
            elif key in found:
                what, hint = f'the key "{shortened(key)}" again', f"line {self.report.places[here][0]} has it already"
                self.report.add(here, what, "each key once", hint, line=_line(key_node))
            else:
                # An absent value has the place of what follows it; its key says better where to look.
                absent = isinstance(value_node, ScalarNode) and not value_node.value and not value_node.style
                self.report.places[here] = (_line(key_node), _line(key_node if absent else value_node))
                found[key] = self.value(value_node, here)
        return found

    def _scalar(self, node: Node, path: KeyPath) -> object:
        tag, text = str(node.tag), str(node.value)
        try:
            match tag.removeprefix(_TAG):
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                # Python reads longer hexadecimal numbers, and cannot write them out.
                case "int" if len(text) <= 1000:
                    digits = text.replace("_", "")
                    return int(digits, 0 if digits.lstrip("+-").startswith("0") else 10)
                case "float":
                    return Decimal(text.replace("_", "").replace(".inf", "Infinity").replace(".nan", "NaN"))
        except (ValueError, InvalidOperation):
            return text
        if not _is_unicode(text):
            self.report.add(path, "half a character (a surrogate)", "text in Unicode")
            return None
        return text


def _has_plain_tag(node: Node) -> bool:
    """Whether it means what it says without its tag, or is a text: `!!str 5`, but not `!!bool yes`."""
    if not isinstance(node, ScalarNode):
        return bool(node.tag == str(_RULES.resolve(type(node), None, None)))
    return node.tag in (f"{_TAG}str", str(_RULES.resolve(ScalarNode, node.value, (not node.style, False))))


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _is_unicode(text: str) -> bool:
    """False for escapes such as `\\ud800`, which no encoding can write."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
