"""Write Grafana's dashboards: `python -m monitoring.boards` (`make dashboards`); `--check` fails on a difference."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from monitoring.boards import BOARDS
from monitoring.boards.render import dashboard

FOLDER = Path(__file__).parents[1] / "grafana" / "dashboards"


def files() -> dict[Path, str]:
    """Every file that is to be there, with its text."""
    return {
        FOLDER / f"{board.uid}.json": json.dumps(dashboard(board), indent=2, ensure_ascii=False) + "\n"
        for board in BOARDS
    }


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 where a file differs.")
def main(check: bool) -> None:
    """Make monitoring/grafana/dashboards/*.json of monitoring/boards/."""
    wanted = files()
    found = {path: path.read_text() for path in FOLDER.glob("*.json")}
    if check:
        if different := sorted(
            path.name for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path)
        ):
            click.echo(f"not as made: {', '.join(different)}; run `make dashboards`", err=True)
            sys.exit(1)
        return
    for path in found.keys() - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
