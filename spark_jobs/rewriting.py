"""Rewrites that change no row: small data files into large ones, many manifests into few.

They commit as `replace`, without a word of state: what is in force stays the nearest ancestor's.
"""

from __future__ import annotations

from dataclasses import dataclass

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Row, SparkSession
from tenacity import Retrying, retry_if_exception, stop_after_attempt

from twofold import catalog as catalogs
from twofold import tables
from twofold.settings import CATALOG, Settings

_CONFLICTS = ("ValidationException", "CommitFailedException", "Missing required files", "Cannot commit rewrite")
_MANY_MANIFESTS = 20
_ATTEMPTS = 5


@dataclass(frozen=True)
class Rewritten:
    """What one rewrite did."""

    files: int = 0
    into: int = 0
    size_bytes: int = 0
    conflict: bool = False
    """Another job changed the same files meanwhile: theirs stands, nothing was rewritten."""


def data_files(
    spark: SparkSession, pipeline: str, table: str, min_input_files: int, order: str | None = None
) -> Rewritten:
    """Rewrite a day's data files where at least `min_input_files` of them are too small (or one is too large).

    `order` sorts the rows of the new files: "" by the table's own sort order, None not at all.
    """
    arguments = [
        f"table => '{tables.qualified(pipeline, table)}'",
        f"options => map('min-input-files', '{min_input_files}')",
    ]
    arguments += [] if order is None else ["strategy => 'sort'"]
    arguments += [f"sort_order => '{order}'"] if order else []
    try:
        row = _call(spark, "rewrite_data_files", arguments)
    except (PySparkException, Py4JJavaError) as error:
        if not _conflict(error):
            raise
        return Rewritten(conflict=True)
    return Rewritten(row["rewritten_data_files_count"], row["added_data_files_count"], row["rewritten_bytes_count"])


def manifests(spark: SparkSession, settings: Settings, pipeline: str, table: str) -> int:
    """Rewrite the manifests where there are many; returns how many."""
    if _manifest_count(settings, pipeline, table) < _MANY_MANIFESTS:
        return 0
    return _rewrite_manifests(spark, pipeline, table)


def clean_manifests(spark: SparkSession, settings: Settings, pipeline: str, table: str) -> None:
    """Leave no manifest that names deleted files. A single manifest is not rewritten by itself, so its files are."""
    if _manifest_count(settings, pipeline, table) > 1:
        _rewrite_manifests(spark, pipeline, table)
    else:
        options = "options => map('rewrite-all', 'true')"
        _call(spark, "rewrite_data_files", [_table(pipeline, table), options])


def _rewrite_manifests(spark: SparkSession, pipeline: str, table: str) -> int:
    """Tried again where another job committed meanwhile: Iceberg refuses to replace a manifest that is gone, and each
    commit of the stream lets go of those that a rewrite of data files has emptied.
    """
    again = Retrying(retry=retry_if_exception(_conflict), stop=stop_after_attempt(_ATTEMPTS), reraise=True)
    row = again(_call, spark, "rewrite_manifests", [_table(pipeline, table)])
    return int(row["rewritten_manifests_count"])


def _conflict(error: BaseException) -> bool:
    """Whether another job committed to the same table first."""
    return isinstance(error, PySparkException | Py4JJavaError) and any(sign in str(error) for sign in _CONFLICTS)


def _manifest_count(settings: Settings, pipeline: str, table: str) -> int:
    found = catalogs.find(catalogs.load(settings), pipeline, table)
    snapshot = found.current_snapshot() if found else None
    return len(snapshot.manifests(found.io)) if found and snapshot else 0


def _call(spark: SparkSession, procedure: str, arguments: list[str]) -> Row:
    return spark.sql(f"CALL {CATALOG}.system.{procedure}({', '.join(arguments)})").collect()[0]


def _table(pipeline: str, table: str) -> str:
    return f"table => '{tables.qualified(pipeline, table)}'"
