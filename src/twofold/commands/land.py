"""`twofold land`: puts files into a pipeline's inbox, each whole or not at all."""

from __future__ import annotations

import os
import stat
import sys
from collections import Counter
from pathlib import Path

import click

from twofold import inbox
from twofold.definition.load import load_pipeline
from twofold.errors import TwofoldError, UsageError
from twofold.settings import Settings

_BAR_FROM_BYTES = 32 << 20


@click.command()
@click.argument("pipeline")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--as", "name", help="Name to put one FILE under, below the inbox; default: its own name.")
@click.pass_obj
def land(settings: Settings, pipeline: str, files: tuple[Path, ...], name: str | None) -> None:
    """Put files into the inbox of PIPELINE, each whole or not at all.

    The next `twofold batch` ingests each file once. Other content put under the same name replaces the file, and the
    new content corrects the old. CSV files (with a header) and JSON lines may be gzipped; Parquet is taken as it is.

    \b
    Examples:
      twofold land flights january.csv february.csv.gz
      twofold land flights /data/export.jsonl --as 2013/march.jsonl
    """
    declared = load_pipeline(settings, pipeline)
    named = _named(files, name)
    _check_sources(files)
    folder = inbox.folder(settings, declared.name)
    for source, target in named:
        _put(folder, source, target)
        click.echo(f"put {target}", err=True)


def _named(files: tuple[Path, ...], name: str | None) -> list[tuple[Path, str]]:
    """Each source with its name in the inbox; UsageError where two would share one."""
    if name is not None and len(files) > 1:
        raise UsageError("--as names one file, but several were given", "put them one at a time")
    named = [(file, inbox.checked_name(name or file.name)) for file in files]
    twice = [target for target, count in Counter(target for _, target in named).items() if count > 1]
    if twice:
        raise UsageError(f"two files would be put as {', '.join(twice)}", "put them one at a time with --as")
    return named


def _check_sources(files: tuple[Path, ...]) -> None:
    """TwofoldError naming every source that cannot be read, before any is put."""
    faults = [f"{file}: {fault}" for file in files if (fault := _source_fault(file))]
    if faults:
        raise TwofoldError("cannot be put:\n  " + "\n  ".join(faults), "nothing was put; correct the list of files")


def _source_fault(file: Path) -> str:
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder: name the files in it"
    if not stat.S_ISREG(mode):
        return "is no regular file"
    return "" if os.access(file, os.R_OK) else "cannot be read: check its permissions"


def _put(folder: inbox.Folder, source: Path, target: str) -> None:
    size = source.stat().st_size
    shown = sys.stderr.isatty() and size >= _BAR_FROM_BYTES
    try:
        with click.progressbar(length=size, label=target, file=sys.stderr, hidden=not shown) as bar:
            folder.put(source, target, bar.update)
    except OSError as error:
        raise TwofoldError(
            f"{target} was not put: {error.strerror or error}", "no part of it was written; fix the cause and repeat"
        ) from None
