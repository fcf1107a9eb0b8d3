"""What `twofold land` refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from twofold.definition.model import Pipeline


def test_land_refuses_what_cannot_be_taken(
    twofold: Callable[..., CompletedProcess[str]], define: Callable[..., Pipeline], tmp_path: Path
) -> None:
    name = define().name
    good = tmp_path / "good.json"
    good.write_bytes(b'{"id": "a"}\n')
    (tmp_path / "notes.txt").write_bytes(b"x")
    (tmp_path / "folder.csv").mkdir()
    wrong: list[tuple[tuple[object, ...], int, str]] = [
        (("nowhere", good), 2, "nowhere"),
        ((name, tmp_path / "notes.txt"), 2, ".parquet"),
        ((name, tmp_path / "folder.csv"), 1, "folder"),
        ((name, good, tmp_path / "missing.csv"), 1, "missing.csv"),
        ((name, good, good), 2, "good.json"),
        ((name, good, "--as", "../good.json"), 2, "leaves"),
        ((name, good, "--as", "_good.json"), 2, "hidden"),
        ((name, good, "--as", "a\nb.json"), 2, "control"),
    ]
    for arguments, code, said in wrong:
        refused = twofold("land", *map(str, arguments), check=False)
        assert (refused.returncode, said in refused.stderr, "Traceback" in refused.stderr) == (code, True, False), (
            arguments, refused.stderr,
        )  # fmt: skip
