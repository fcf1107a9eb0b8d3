"""The definitions that a query may need."""

from __future__ import annotations

from twofold.definition.load import check_file, definition_files, load_pipeline
from twofold.definition.model import Pipeline
from twofold.reader.names import words
from twofold.settings import Settings


def mentioned_pipelines(settings: Settings, sql: str, default: str | None = None) -> dict[str, Pipeline]:
    """Every sound definition by name. One with faults is in nobody's way, unless the SQL names it: DefinitionError."""
    files = {path: check_file(path)[0] for path in definition_files(settings.pipelines)}
    found = {pipeline.name: pipeline for pipeline in files.values() if pipeline is not None}
    named = {*words(sql), default}
    for path, pipeline in files.items():
        if pipeline is None and path.stem in named:
            load_pipeline(settings, path.stem)
    if default is not None and default not in found:
        load_pipeline(settings, default)
    return found
