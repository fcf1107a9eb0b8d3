"""What Spark starts for its Python workers: a process that has imported what tasks need, which they are forked from.

By itself each worker would import all of it (2.5 CPU-seconds), and after every task look through all of that for
garbage, and read the lists of three archives again: 0.1 CPU-seconds, more than a small batch takes.
"""

from __future__ import annotations

import gc
import sys
from zipimport import zipimporter

from twofold import shell

# Spark puts pyspark.zip, py4j's and a jar on the path; what is Python in them is installed as packages.
archives = [entry for entry, finder in sys.path_importer_cache.items() if isinstance(finder, zipimporter)]
sys.path[:] = [entry for entry in sys.path if entry not in archives]
for entry in archives:
    del sys.path_importer_cache[entry]
shell.without_pandas()

# ruff: noqa: E402 - only now, so that they are not read from the zip files
import pyarrow as pa
import pyspark.worker  # noqa: F401
from pyspark.daemon import manager

import spark_jobs.view_aggregation  # noqa: F401  (and all other tasks)

if __name__ == "__main__":
    # At its first conversion of Python objects pyarrow looks for pandas.
    pa.array([""])
    gc.collect()
    gc.freeze()
    try:
        manager()  # type: ignore[no-untyped-call]
    finally:
        # Python's own end is to find it all, else DuckDB's binding reports leaks, at length.
        gc.unfreeze()
