"""How many bytes a table writes, though most of its files are removed soon: seen by looking often enough.

look() ─► names and sizes of the folder now ─► every file ever seen counts once, with its largest size
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlparse


class Written:
    """The files that were ever seen in one local folder; those that were there at the start do not count."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = {name for name, _ in self._entries()}
        self._sizes: dict[str, int] = {}
        self._growing: set[str] = set()

    @property
    def files(self) -> int:
        """Number of files."""
        return len(self._sizes)

    @property
    def bytes(self) -> int:
        """Together."""
        return sum(self._sizes.values())

    def look(self) -> None:
        """Must be called more often than a file lives (Iceberg keeps the last 20 metadata files of a table)."""
        growing: set[str] = set()
        for name, entry in self._entries():
            if name in self._before or (name in self._sizes and name not in self._growing):
                continue
            try:
                size = entry.stat().st_size
            except FileNotFoundError:
                continue
            if size != self._sizes.get(name):
                growing.add(name)
            self._sizes[name] = max(size, self._sizes.get(name, 0))
        self._growing = growing

    def _entries(self) -> list[tuple[str, os.DirEntry[str]]]:
        if not self._folder.exists():
            return []
        with os.scandir(self._folder) as entries:
            return [(entry.name, entry) for entry in entries]


def metadata_folder(table_location: str) -> Path:
    """Where a table of a lake on this disk keeps its metadata."""
    return Path(urlparse(table_location).path) / "metadata"
