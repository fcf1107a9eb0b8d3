"""What a job says of a failure inside the JVM: the innermost cause, on one line."""

from __future__ import annotations

import pytest

from spark_jobs.outcome import root_cause

HEAD = "An error occurred while calling o97.sql."
THROWN = ": org.apache.iceberg.exceptions.ValidationException: Deleted manifest m0.avro could not be found: in 7"
TRACE = "\tat org.apache.iceberg.BaseRewriteManifests.apply(BaseRewriteManifests.java:170)"
CAUSE = "Caused by: java.io.IOException: No space left: /data"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([HEAD, THROWN, TRACE], THROWN.removeprefix(": ")),
        ([HEAD, THROWN, TRACE, CAUSE, TRACE], "java.io.IOException: No space left: /data"),
        (["[TABLE_OR_VIEW_NOT_FOUND] The table `t` cannot be found.", "remedy: none"], None),
    ],
)
def test_the_innermost_cause_is_told_and_never_py4js_own_words(said: list[str], told: str | None) -> None:
    assert root_cause(ValueError("\n".join(said))) == (told or said[0])
