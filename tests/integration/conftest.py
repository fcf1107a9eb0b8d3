"""Fixtures that only tests against real services use: a Spark session, and a pipeline to prove."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_jobs import spark_session
from tests.proofs import new_world
from tests.small_world import SmallWorld
from twofold.settings import Settings


@pytest.fixture(scope="session")
def _spark_ends(stack: Settings) -> Iterator[None]:
    """The session ends before the services that it talks to."""
    yield
    if shared := SparkSession._instantiatedSession:
        spark_session.close(shared)


@pytest.fixture(scope="module")
def spark(stack: Settings, _spark_ends: None) -> Iterator[SparkSession]:
    """A session on `stack`, for what needs no process of its own: all files of a worker share it.

    A test that ends it, to build one of its own, leaves it to the next file to start another.
    """
    session = SparkSession._instantiatedSession or spark_session.build(stack, "tests")
    yield session
    if SparkSession._instantiatedSession is session:
        streams = session.streams._jsqm
        for listener in streams.listListeners():
            streams.removeListener(listener)


@pytest.fixture(scope="module")
def whole(stack: Settings, pipelines_folder: Path) -> SmallWorld:
    """A pipeline on which every invariant holds."""
    return new_world(stack, pipelines_folder)


@pytest.fixture
def world(whole: SmallWorld) -> Iterator[SmallWorld]:
    """The same, put back as it was at the end."""
    names = [name[-1] for name in whole.catalog.list_tables(whole.pipeline.name)]
    before = {name: whole.table(name).metadata.current_snapshot_id for name in names}
    yield whole
    for name, snapshot in before.items():
        table = whole.table(name)
        if snapshot is not None and table.metadata.current_snapshot_id != snapshot:
            table.manage_snapshots().set_current_snapshot(snapshot_id=snapshot).commit()
