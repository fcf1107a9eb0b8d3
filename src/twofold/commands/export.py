"""`twofold export`: the unified events as plain Parquet files."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from twofold.definition.load import load_pipeline
from twofold.reader import Reader, output
from twofold.settings import Settings


@click.command()
@click.argument("pipeline")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), required=True, help="Folder to write; it appears whole."
)
@click.option("--single", is_flag=True, help="One file, sorted by event time, instead of a folder per day.")
@click.option("--overwrite", is_flag=True, help="Replace a folder that is not empty, once the new one is whole.")
@click.pass_obj
def export(settings: Settings, pipeline: str, target: Path, single: bool, overwrite: bool) -> None:
    """Write the unified events, exact as of now, as Parquet: DIR/<event time>_day=2013-05-01/….parquet.

    The files in the bucket are not a substitute: they include superseded ones.

    \b
    Examples:
      twofold export flights --to /data/flights
      twofold export flights --to /data/flights --overwrite
      twofold export flights --to /data/sorted --single
    """
    declared = load_pipeline(settings, pipeline)
    console = Console(stderr=True)
    with (
        output.whole_folder(target, overwrite=overwrite) as folder,
        Reader(settings, {declared.name: declared}) as reader,
        Progress(console=console, transient=True, disable=not console.is_terminal) as shown,
    ):
        task = shown.add_task(f"exporting {pipeline}", total=100)
        rows = output.export(
            reader, declared, folder, single=single, progress=lambda percent: shown.update(task, completed=percent)
        )
        written_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    click.echo(f"{rows:,} events, {written_bytes / 1e6:,.1f} MB, written to {target}", err=True)
