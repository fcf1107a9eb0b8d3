"""Fixtures that every test may use: real stacks, started once, and pipelines with random names.

Nothing is cleaned up between tests: each takes a pipeline (so topic, tables and checkpoints) of its own.
"""

from __future__ import annotations

import secrets
import signal
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import HealthCheck
from ruamel.yaml import YAML

from demo.airflow_rest import AirflowRest
from tests import running
from twofold.definition.load import load_file
from twofold.definition.model import Pipeline
from twofold.settings import Settings

if TYPE_CHECKING:
    # The process that hands the tests out reads this file, too, before any other begins: it takes 0.7 s to import.
    from twofold.catalog import LakeCatalog

# Programs of processes of their own. To look in them for doctests would import Airflow here, which takes seconds.
collect_ignore = ["airflow_facts.py", "airflow_trigger.py"]

DEFINITION: dict[str, Any] = {
    "topic": {"partitions": 2},
    "event": {
        "id": "id",
        "time": "at",
        "max_future": "1 day",
        "fields": {
            "id": {"type": "string", "required": True, "max_length": 64},
            "at": {"type": "timestamp", "required": True},
            "kind": {"type": "string", "required": True, "one_of": ["a", "b", "c"]},
            "value": {"type": "int", "min": -1000, "max": 1000},
            "hidden": {"type": "boolean"},
        },
    },
    "filter": "hidden is null or not hidden",
    "lateness": "10 minutes",
    # Views are waited for.
    "stream": {"views_trigger": "1 second"},
    "views": {
        "by_kind": {
            "window": "1 hour",
            "by": ["kind"],
            "measures": {"events": "count(*)", "total": "sum(value)", "mean": "avg(value)"},
        }
    },
}
"""What `define` starts from."""

# How long an example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.settings.load_profile("any machine")


DAGS = len(list((Path(__file__).parents[1] / "dags").glob("*_dag.py")))
"""So many DAGs a pipeline has: one of each file."""
ONCE = ("airflow", "minio_stack")
"""Stacks that only one worker starts."""
LONGEST = (
    "airflow", "test_kills", "test_services", "test_stream_views", "test_reland", "test_prove", "test_batch",
    "test_streaming", "test_layers", "test_maintain", "test_producer", "minio_stack", "test_topic_of_others",
    "test_names",
)  # fmt: skip
"""Groups of tests that take longer than any other, in this order: begun first, so that the workers end together."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one worker, and all those of a stack that is started ONCE; the LONGEST groups first."""

    def place(item: pytest.Item) -> int:
        fixtures = getattr(item, "fixturenames", ())
        group = next((stack for stack in ONCE if stack in fixtures), item.path.stem)
        item.add_marker(pytest.mark.xdist_group(group))
        return LONGEST.index(group) if group in LONGEST and item.path.parent.name == "integration" else len(LONGEST)

    items.sort(key=place)


def pytest_collection_finish(session: pytest.Session) -> None:
    """In a worker, see that the groups reached the scheduler: torn apart, each worker would start every stack."""
    if hasattr(session.config, "workerinput") and any("@" not in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist has not taken up the groups of tests; see requirements/dev.in")


@pytest.fixture(scope="session", autouse=True)
def _end_like_an_interrupt() -> Iterator[None]:
    """SIGTERM (a CI's time limit) runs the fixtures' ends, as Ctrl-C does, so that no service stays behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session", autouse=True)
def _no_disk_is_waited_for() -> None:
    """A catalog in SQLite is a test's: it need not outlive a machine that loses its power."""
    from sqlalchemy import Engine, event

    @event.listens_for(Engine, "connect")
    def connected(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF").close()


@pytest.fixture(scope="session")
def pipelines_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `define` puts definitions; both stacks' settings name it."""
    return tmp_path_factory.mktemp("pipelines")


@pytest.fixture(scope="session")
def stack(pipelines_folder: Path) -> Iterator[Settings]:
    """A running embedded stack with the local store. Do not stop its services without starting them again."""
    with running.running_stack(pipelines_folder, "local") as settings:
        yield settings


@pytest.fixture(scope="session")
def minio_stack(pipelines_folder: Path) -> Iterator[Settings]:
    """A running embedded stack with MinIO, and monitoring."""
    with running.running_stack(pipelines_folder, "minio", monitoring=True) as settings:
        yield settings


@pytest.fixture(scope="session")
def airflow_pipelines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `airflow_define` puts definitions: each gets its DAGs, which is why other tests' are elsewhere.

    One is there from the start: by its DAGs, their files are known.
    """
    folder = tmp_path_factory.mktemp("airflow-pipelines")
    write_definition(folder)
    return folder


@pytest.fixture(scope="session")
def airflow(airflow_pipelines: Path) -> Iterator[Settings]:
    """A running embedded stack of its own with Airflow and monitoring, quick to notice a kill, new DAGs paused."""
    with running.running_stack(airflow_pipelines, "local", airflow=True, monitoring=True) as settings:
        yield settings


@pytest.fixture
def twofold(stack: Settings) -> Callable[..., CompletedProcess[str]]:
    """Run a command on `stack` as a user would: `twofold("batch", name)`, or with check=False to see it fail."""
    return partial(running.run, stack)


@pytest.fixture
def pipeline_name() -> str:
    """A name that no other test has."""
    return random_name()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[LakeCatalog]:
    """A catalog of its own, without services."""
    from twofold.catalog import LakeCatalog

    found = LakeCatalog("test", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/tables")
    yield found
    found.engine.dispose()


@pytest.fixture(scope="session")
def define(pipelines_folder: Path) -> Callable[..., Pipeline]:
    """Write a definition and load it: `define(lateness="1 minute", event={"fields": {"value": None}})`.

    Overrides are merged into DEFINITION at every depth; None takes a key away. Name and topic are random by default.
    """
    return partial(write_definition, pipelines_folder)


@pytest.fixture(scope="session")
def airflow_define(airflow: Settings, airflow_pipelines: Path) -> Callable[..., Pipeline]:
    """As `define`, for the pipelines of the stack `airflow`, which then knows their DAGs."""
    from tests.at_work import eventually

    def defined(**overrides: Any) -> Pipeline:  # noqa: ANN401
        pipeline, rest = write_definition(airflow_pipelines, **overrides), AirflowRest(airflow)
        eventually(lambda: rest.get("dags", dag_id_pattern=f"{pipeline.name}_")["total_entries"] == DAGS, every_s=1)
        return pipeline

    return defined


def write_definition(folder: Path, **overrides: Any) -> Pipeline:  # noqa: ANN401
    """Write DEFINITION, with what overrides it, into a folder, and load it."""
    name = overrides.get("name") or random_name()
    document = merged({"name": name, **DEFINITION, "topic": {"name": name, **DEFINITION["topic"]}}, overrides)
    # Put in place whole: Airflow may read the folder at any moment.
    draft, path = folder / f"{name}.yaml.draft", folder / f"{name}.yaml"
    with draft.open("w") as file:
        YAML(typ="safe").dump(document, file)
    draft.replace(path)
    return load_file(path)


def random_name() -> str:
    """A pipeline name that no other test has."""
    return f"p_{secrets.token_hex(5)}"


def merged(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """`base` with `overrides` merged in at every depth; None takes a key away."""
    result = dict(base)
    for key, value in overrides.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result
