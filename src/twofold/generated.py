"""Pages of docs/ that are made from the code: written by a `make` target, compared by `make lint`."""

from __future__ import annotations

import sys
from pathlib import Path


def write_or_check(page: Path, text: str, source: str, target: str) -> None:
    """Write the page, or with --check on the command line only compare: exit 1 where it differs from its `source`."""
    if "--check" not in sys.argv[1:]:
        page.write_text(text)
    elif not page.exists() or page.read_text() != text:
        sys.exit(f"docs/{page.name} is not what {source}: run `make {target}`")
