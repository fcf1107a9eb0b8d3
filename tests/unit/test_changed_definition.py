"""What becomes of answers when a definition changes: union, views and readers on real tables, without services."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from spark_jobs import union
from spark_jobs.spark_session import Job
from spark_jobs.stream_views import ViewWriter
from tests import lake as by_hand
from tests.conftest import write_definition
from tests.lake import LocalLake
from tests.small_world import Row
from twofold import catalog as catalogs
from twofold import commits, comparison, looks, schemas, table_state, tables
from twofold.catalog import LakeCatalog
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline
from twofold.errors import IncompatibleDefinition
from twofold.proof import changes
from twofold.proof.sent import Sent
from twofold.proof.world import World, connect, pinned
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.table_state import Folded, Landed

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
NAME = "changed"
VIEWS: dict[str, Any] = {
    "by_kind": None,
    "v": {
        "window": "1 hour",
        "measures": {
            "over": "count_if(value + n > 100)",
            "spent": "sum(value * n)",
            "m": "avg(value * n)",
            "c": "count(*)",
        },
    },
}


class Changing:
    """A pipeline that is declared again and again, and its tables."""

    def __init__(self, folder: Path, catalog: LakeCatalog) -> None:
        self.folder, self.catalog, self.sent = folder, catalog, 0

    def declare(self, **event: Any) -> Pipeline:  # noqa: ANN401
        fields = {"value": {"type": "int", "min": None, "max": None}, "n": {"type": "int"}, **event.pop("fields", {})}
        self.pipeline = write_definition(
            self.folder, name=NAME, views=VIEWS, filter=None, event={**event, "fields": fields}
        )
        self.lake = LocalLake(Settings(home=self.folder), self.pipeline, self.catalog)
        return self.pipeline

    @property
    def job(self) -> Job:
        return cast(Job, SimpleNamespace(lake=self.lake, pipeline=self.pipeline, settings=self.lake.settings))

    def land(self, *rows: Row) -> None:
        log = schemas.ensure_tables(self.catalog, self.pipeline)[tables.STREAM_LOG]
        landed = [
            {**row, "outcome": tables.ACCEPTED, "landing": 1, "kafka_partition": 0, "kafka_offset": self.sent + number}
            for number, row in enumerate(rows)
        ]
        self.sent += len(rows)
        by_hand.append(log, landed, Landed(NAME, 1, "t", {0: self.sent}))

    def unite(self) -> list[int]:
        """One union; the days of windows that were folded, by view."""
        schemas.ensure_tables(self.catalog, self.pipeline)
        union.unite(self.job)
        return [union.recompute_view(self.job, view) for view in self.pipeline.views.values()]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with Reader(self.lake.settings, {NAME: self.pipeline}) as reader:
            return reader.query(sql, NAME).fetchall()


@pytest.fixture
def changing(lake: LakeCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Changing:
    monkeypatch.setattr(catalogs, "load", lambda settings: lake)
    made = Changing(tmp_path, lake)
    made.declare()
    values = ((2_000_000_000, 3), (5, 6), (2_147_483_647, 1))
    made.land(*(event(f"e{number}", value=value, n=n) for number, (value, n) in enumerate(values)))
    made.unite()
    return made


def event(key: str, hours: int = 0, **values: object) -> Row:
    at = NOON + timedelta(hours=hours)
    return {
        "id": key,
        "at": at,
        "other": at,
        "kind": "abc"[hours % 3],
        "value": 1,
        "n": 1,
        "kafka_timestamp": at,
        **values,
    }


def test_a_field_that_becomes_wider_is_folded_again(changing: Changing, tmp_path: Path) -> None:
    """As int its sums were null where they overflowed, and stayed so in batch_<view>, whose union had nothing to do."""
    narrow, wide = [(1, 2_147_483_677, 1_073_741_838.5)], [(2, 8_147_483_677, 8_147_483_677 / 3)]
    asked = "SELECT over, spent, m FROM unified_v"
    assert changing.query(asked) == narrow
    assert changing.unite() == [0] and looks._union(changing.lake) is not None

    changing.declare(fields={"value": {"type": "long", "min": None, "max": None}})
    schemas.ensure_tables(changing.catalog, changing.pipeline)
    assert changing.query(asked) == wide, "before the union"
    assert looks._union(changing.lake) is None
    (view,) = changing.pipeline.views.values()
    names = [*(made(view) for made in (tables.batch_view_name, tables.stream_view_name)), tables.EVENTS]
    pins = {name: pinned(name, catalogs.find(changing.catalog, NAME, name)) for name in names}
    world = World(changing.lake, connect(tmp_path), Sent(NAME, "t"), pins)
    assert not changes._is_folded(world, view), "the proof calls it behind"

    assert changing.unite() == [1]
    assert changing.query(asked) == wide
    assert changing.query("SELECT over, spent, m FROM batch_v") == wide
    assert changing.unite() == [0]


def test_layers_are_compared_once_a_wider_field_is_folded_again(changing: Changing) -> None:
    """Until then batch_<view> has nulls where the sums had overflowed, which the speed layer need not have."""
    changing.land(event("later", 3, value=1, n=1))
    changing.unite()
    (view,) = changing.pipeline.views.values()
    table = schemas.ensure_view(changing.catalog, changing.pipeline, view, tables.stream_view_name(view))
    window = {"window_start": NOON, "window_end": NOON + view.window, "c": 3, "over": 1}
    by_hand.append(table, [window], Folded(None, fingerprint.view(changing.pipeline, view)))

    def compared() -> int:
        with Reader(changing.lake.settings, {NAME: changing.pipeline}) as reader:
            return comparison._view(reader, changing.pipeline, view, None).compared

    assert compared() == 1
    changing.declare(fields={"value": {"type": "long", "min": None, "max": None}})
    schemas.ensure_tables(changing.catalog, changing.pipeline)
    (view,) = changing.pipeline.views.values()
    assert compared() == 0
    changing.unite()
    assert compared() == 1


def test_a_view_of_a_version_that_did_not_keep_types_is_folded_once(changing: Changing) -> None:
    table = changing.catalog.load_table((NAME, "batch_v"))
    known = table_state.folded(table_state.history_of(table))
    assert known is not None and known.types is not None
    commits.append(table, (), table_state.encode(replace(known, types=None)))
    assert changing.query("SELECT c, layer FROM unified_v") == [(3, "batch")]
    assert changing.unite() == [1]
    assert changing.unite() == [0]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"id": ["id", "kind"]}, "event.id: was 'id', is now 'id,kind'"),
        ({"id": "none"}, "event.id: was 'id', is now 'none'"),
        ({"id": "kind"}, "event.id: was 'id', is now 'kind'"),
        ({"time": "other", "fields": {"other": {"type": "timestamp", "required": True}}}, "event.time: was 'at'"),
        ({"fields": {"kind": {"type": "int", "one_of": None}}}, "event.fields.kind.type: was string, is now int"),
    ],
)
def test_readers_refuse_what_jobs_refuse(changing: Changing, declared: dict[str, Any], said: str) -> None:
    """They answered: 6 of 10 events with another id, as all rows that had none of that were one."""
    changing.land(*(event(f"f{hours}", hours) for hours in range(2, 7)))
    assert changing.query("SELECT count(*) FROM unified_events") == [(8,)]
    changing.declare(**declared)
    for name in ("unified_events", "unified_v"):
        with pytest.raises(IncompatibleDefinition) as refused:
            changing.query(f"SELECT count(*) FROM {name}")
        assert str(refused.value).count(said) == 1
    # What the tables hold is answered by them alone.
    assert changing.query("SELECT count(*) FROM stream_log") == [(8,)]


def test_the_keys_of_a_states_rows_are_part_of_its_make(changing: Changing) -> None:
    """Spark refuses a state whose ids or groups have become wider: the streaming job did not start any more."""

    def make(by: str, **declared: Any) -> str:  # noqa: ANN401
        (view,) = changing.declare(**declared).views.values()
        counts = replace(view, by=(by,), measures={"c": view.measures["c"]})
        return ViewWriter(changing.job, counts)._layout

    narrow, wide = ({"fields": {"n": {"type": kind, "required": True}}} for kind in ("int", "long"))
    assert make("n", **narrow) == make("n", **narrow) != make("n", **wide)
    assert make("kind", **narrow) == make("kind", **wide)
    assert make("kind", id="n", **narrow) != make("kind", id="n", **wide)
