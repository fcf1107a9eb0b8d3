"""What lies where in the bucket, and whose a file is: three roots that meet under no name.

    <warehouse>/tables/<pipeline>/<table>/         data/ and metadata/ of an Iceberg table
    <warehouse>/landing/<pipeline>/                the inbox: files that users put there
    <warehouse>/checkpoints/<pipeline>/<query>/    of Spark's streaming queries

Earlier releases made tables at <warehouse>/<pipeline>/<table>/. They stay there, and so a pipeline `landing` of that
time has its table `events` in the very folder that is the inbox of a pipeline `events`; with `checkpoints` and `tables`
it is the same. Whoever lists or removes files in a folder that may be shared asks here whose each file is, by its name.

Incident: maintenance of a pipeline `landing` removed the files of another pipeline's inbox as orphans of its table, and
that pipeline's batch job ingested the table's own files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from twofold.errors import UsageError
from twofold.settings import Settings

DATA = "data"
METADATA = "metadata"
"""The two folders in which all files of an Iceberg table lie."""

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PARTITIONS = "(?:[^/=]+=[^/]*/)*"
_DATA_FILE = rf"[0-9]{{5,}}-[0-9]+-{_UUID}(?:-[0-9]+)*(?:-deletes)?\.parquet"
_METADATA_FILE = "|".join((
    rf"[0-9]{{5,}}-{_UUID}(?:\.gz)?\.metadata\.json",
    rf"snap-[0-9]+-[0-9]+-{_UUID}\.avro",
    rf"{_UUID}-m[0-9]+\.avro",
    rf"optimized-m-{_UUID}\.avro",
))  # fmt: skip
_TABLE_FILE = re.compile(f"{DATA}/{_PARTITIONS}{_DATA_FILE}|{METADATA}/(?:{_METADATA_FILE})")


def is_table_file(name: str) -> bool:
    """Whether a path below a table's folder is named as the writers of tables (Spark, Iceberg, pyiceberg) name files.

    >>> is_table_file("data/at_day=2026-03-01/00000-7-0e4bb1f4-19b5-4a39-8a6c-6c5d0b7cf0a7-0-00001.parquet")
    True
    >>> is_table_file("data/march.parquet"), is_table_file("00000-7-0e4bb1f4-19b5-4a39-8a6c-6c5d0b7cf0a7.parquet")
    (False, False)
    """
    return _TABLE_FILE.fullmatch(name) is not None


@dataclass(frozen=True)
class TableInInbox:
    """The table, if any, that an earlier release made in the folder which is a pipeline's inbox."""

    settings: Settings
    pipeline: str

    def owns(self, name: str) -> bool:
        """Whether a file of the inbox is the table's; the catalog is asked only about names that tables use."""
        return is_table_file(name) and self.is_there()

    def is_there(self) -> bool:
        """Whether the catalog has such a table; NotRunning where nobody can say."""
        # Imported here, as the catalog's client takes a second, and almost no inbox has such names.
        from pyiceberg.io.pyarrow import PyArrowFileIO

        from twofold import catalog

        root, folder = self.settings.inbox(self.pipeline).rsplit("/", 1)
        table = catalog.find(catalog.load(self.settings), root.rsplit("/", 1)[1], folder)
        if table is None:
            return False
        lies, inbox = (PyArrowFileIO.parse_location(uri)[2] for uri in (table.location(), f"{root}/{folder}"))
        return bool(lies.rstrip("/") == inbox)

    def refuse(self, name: str) -> None:
        """UsageError where a file of this name would be taken for one of the table's."""
        if self.owns(name):
            raise UsageError(
                f"{name!r} is a name for files of the table landing.{self.pipeline}, which lies in this folder",
                "choose another name with --as",
            )
