"""docs/DAGS.md out of the docstrings of the DAG files, which Airflow's UI shows as the manuals of their DAGs.

By hand: `make manuals`; `make lint` fails while the page differs.
"""

from __future__ import annotations

import ast
from pathlib import Path

from twofold.generated import write_or_check

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "DAGS.md"
HEAD = """# DAGs

For every file of the pipelines folder Airflow runs these DAGs; `<p>` is the pipeline's name. This page is made from the
docstrings in `dags/` by `make manuals`, and Airflow's UI shows the same texts. Runbooks: `docs/runbooks/`.
"""


def page(folder: Path) -> str:
    """The page's text: the manual of each DAG file, by name, its title one level down."""
    docstrings = (ast.get_docstring(ast.parse(file.read_text())) or "" for file in sorted(folder.glob("*.py")))
    manuals = (text for text in docstrings if text.startswith("# "))
    return "\n".join([HEAD, *(f"#{text}\n" for text in manuals)])


def main() -> None:
    """Write the page, or with --check only compare."""
    write_or_check(PAGE, page(ROOT / "dags"), "the docstrings in dags/ say", "manuals")


if __name__ == "__main__":
    main()
