"""Pipeline files ─► `Pipeline`, or all their faults at once.

    file ─► yaml_reader (values, lines) ─► shape (keys, types) ─► build (rules, expressions) ─► Pipeline
                    └──────────────────────┴── faults ──────────┘

By hand: `twofold check pipelines/flights.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from twofold.definition.fault import Fault, Report, near_miss
from twofold.definition.keys import read_section
from twofold.definition.model import Pipeline
from twofold.definition.rules import check_whole
from twofold.definition.yaml_reader import read_document
from twofold.errors import DefinitionError, UsageError
from twofold.settings import Settings

SUFFIXES = (".yaml", ".yml")
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
    """The definitions in a folder, sorted; UsageError if there is no such folder."""
    if not folder.is_dir():
        raise UsageError(f"no folder {folder}", _OTHER_FOLDER)
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))


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
                faults.append(Fault(shown_path(path), _line_of(path, key), key, found, f"a {key} of its own"))
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
    checked = [(path, *check_file(path)) for path in definition_files(settings.pipelines)]
    sound = [(path, pipeline) for path, pipeline, _ in checked if pipeline is not None]
    own = {shown_path(path) for path, pipeline in sound if pipeline.name == name}
    claims = [fault for fault in clashes(sound) if fault.file in own]
    if claims:
        raise definition_error(claims)
    for _, pipeline in sound:
        if pipeline.name == name:
            return pipeline
    faults = [fault for path, _, found in checked if _claims(path, name) for fault in found]
    if faults:
        raise definition_error(faults)
    raise _unknown(name, [pipeline.name for _, pipeline in sound], settings.pipelines)


def definition_error(faults: Iterable[Fault]) -> DefinitionError:
    """All faults as one error."""
    listed = list(faults)
    count = "1 fault" if len(listed) == 1 else f"{len(listed)} faults"
    lines = "\n".join(f"  {fault}" for fault in listed)
    return DefinitionError(f"{count}:\n{lines}", "fix the definition; `twofold check` lists what is left")


def _unknown(name: str, known: list[str], folder: Path) -> UsageError:
    hint = near_miss(name, known) or (f"known: {', '.join(sorted(known))}" if known else "it holds no sound definition")
    return UsageError(f'no pipeline "{name}" in {shown_path(folder)} ({hint})', _OTHER_FOLDER)


def _claims(path: Path, name: str) -> bool:
    """Whether a file with faults is the one meant by `name`: it says so, or is called so."""
    report = Report(str(path))
    document = read_document(path, report) or {}
    return document.get("name", path.stem) == name or path.stem == name


def _line_of(path: Path, key: str) -> int:
    report = Report(str(path))
    read_document(path, report)
    return report.lines((key,))[1]


def shown_path(path: Path) -> str:
    """Relative to the working folder where it lies below it."""
    here = Path.cwd()
    return str(path.absolute().relative_to(here)) if path.absolute().is_relative_to(here) else str(path)
