"""The parts of a run as rows: what was measured, and each ratio beside its floor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from benchmarks import commits, dags, flink, formats, latency, live, queries
from benchmarks.bench import (
    COMMITS,
    FLINK_HEAP,
    FLINK_LANDING,
    FLINK_ROCKSDB,
    FLINK_VIEW,
    LIVE,
    LIVE_LANDING,
    LIVE_VIEW,
    MAIN,
    Bench,
    Drained,
)
from benchmarks.marks import STEADY
from benchmarks.measure import Usage

PRODUCER_FLOOR = 0.08
DRAIN_FLOOR = 1.5
QUERY_CEILING = 4.0
HIGHEST_LIVE_RATE = 20_000
TASK_CEILING_S = 1.5
LANDING_CPU_S, TRICKLE_CORES, FILES_A_DAY, METADATA_GB = 9, 0.10, 17_280, 2
"""What a stream that only ingests may cost: per million events, at a trickle, and a day at a trigger of 5 s."""
AGED_CEILING = 1.3
"""What a table may get slower in a day."""
NESTED_FLOOR, CONFLUENT_FLOOR, AVRO_FLOOR = 0.5, 0.95, 60
"""To flat JSON in MB; to JSON; in thousand records per CPU-second."""
TWOFOLD, FLINK = "twofold", "PyFlink"


@dataclass(frozen=True)
class Row:
    """One figure set; what does not apply is None. `bound` is the floor (or ceiling) that the ratio has to keep."""

    part: str
    what: str
    wall_s: float | None = None
    cpu_s: float | None = None
    events_per_s: float | None = None
    events_per_cpu_s: float | None = None
    ratio: float | None = None
    bound: str = ""
    note: str = ""


def producer(bench: Bench) -> list[Row]:
    """Twofold's producer beside Kafka's own; Java is rated by its own count, which leaves its start-up out."""
    (java, java_per_s), size = bench.produced_by_java, bench.record_bytes
    one, other = (
        _row("producer", what, usage, bench.events)
        for what, usage in (("librdkafka", bench.produced), ("kafka-python", bench.produced_by_kafka_python))
    )
    rival = Row("producer", "Java", java.wall_s, java.cpu_s, java_per_s, bench.events / java.cpu_s)
    return [
        rival,
        _rated(
            one, (one.events_per_s or 0) / java_per_s, f">= {PRODUCER_FLOOR}", f"to Java; {size:.0f} bytes a record"
        ),
        _rated(other, (other.events_per_s or 0) / java_per_s, "", "to Java"),
    ]


def drain(bench: Bench) -> list[Row]:
    """Ingest and view beside the textbook job, and beside the same job with Twofold's settings of Spark."""
    rivals = {"textbook": bench.drained_by_textbook, "tuned textbook": bench.drained_by_tuned_textbook}
    rows = [row for name, rival in rivals.items() for row in _stages(name, rival, bench.events)]
    rows += _stages("twofold", bench.drained, bench.events)
    for name, rival in rivals.items():
        ratios = {
            "in all": rival.usage.cpu_s / bench.drained.usage.cpu_s,
            "steady": _per_cpu_s(bench.drained) / _per_cpu_s(rival) if _per_cpu_s(rival) else None,
        }
        rows += [
            Row("drain", f"{what}, to the {name}", ratio=ratio, bound=f">= {DRAIN_FLOOR}", note="events per CPU-second")
            for what, ratio in ratios.items()
        ]
    return rows


def latency_of(bench: Bench) -> list[Row]:
    """From Kafka to visible, at half of what the warm stream takes."""
    rate = max(1, round(min(bench.steady_per_s / 2, HIGHEST_LIVE_RATE)))
    found = latency.measure(bench.settings, LIVE, rate)
    times = f"p50 {found.p50_ms:,.0f} ms, p99 {found.p99_ms:,.0f} ms, longest {found.max_ms:,.0f} ms"
    return [Row("latency", f"{found.events:,} events", events_per_s=found.sent_per_s, note=f"{times}; asked {rate}/s")]


def union(bench: Bench) -> list[Row]:
    """All rows are new to `events`."""
    return [_row("union", f"{bench.events:,} new rows", bench.unioned, bench.events)]


def query(bench: Bench) -> list[Row]:
    """The unified query after that union, beside DuckDB on the exported file."""
    opened_ms, timed = queries.measure(bench.settings, MAIN, bench.exported)
    rows = [Row("query", "opening the session", opened_ms / 1000)]
    for one in timed:
        times = f"{one.unified_ms:.1f} ms, DuckDB {one.plain_ms:.1f} ms; first run {one.unified_first_ms:.1f} ms"
        rows.append(
            Row("query", one.query, one.unified_ms / 1000, ratio=one.ratio, bound=f"<= {QUERY_CEILING}", note=times)
        )
    return rows


def overhead(bench: Bench) -> list[Row]:
    """What Airflow adds to a task that has nothing new to do."""
    rows = []
    for one in dags.measure(bench.settings.pipelines, MAIN):
        note = (
            f"{one.added_s:+.2f} s to {one.shell_s:.2f} s in a shell; a worker had it {one.waited_s:.2f} s after queued"
        )
        rows.append(Row("dags", one.task, one.task_s, ratio=one.added_s, bound=f"<= {TASK_CEILING_S} s", note=note))
    return rows


def live_of(bench: Bench) -> Iterator[Row]:
    """A stream that runs, ingest alone and with one view, beside PyFlink; each as a part of its own would be."""
    landing, view = "ingest alone", "with the view"
    ways: dict[tuple[str, str], Callable[[str], tuple[live.Live, str]]] = {
        (landing, TWOFOLD): lambda who: bench.lived(LIVE_LANDING, who),
        (view, TWOFOLD): lambda who: bench.lived(LIVE_VIEW, who),
        (landing, FLINK): lambda who: bench.lived_by_flink(FLINK_LANDING, who, view=False),
        (view, FLINK): lambda who: bench.lived_by_flink(FLINK_VIEW, who),
        (view, f"{FLINK}, distinct"): lambda who: bench.lived_by_flink(FLINK_HEAP, who, distinct=True),
        (view, f"{FLINK}, distinct, RocksDB"): lambda who: bench.lived_by_flink(
            FLINK_ROCKSDB, who, distinct=True, state=flink.ROCKSDB
        ),
    }
    found: dict[tuple[str, str], live.Live] = {}
    for (what, who), way in ways.items():
        found[what, who], told = way(f"{who}, {what}")
        yield from _live_rows(f"{who}, {what}", found[what, who], told, bench.events)
        if what == landing and who == TWOFOLD:
            yield from _bounds(found[what, who], bench.events)
    for (what, who), rival in found.items():
        if who != TWOFOLD:
            ours = found[what, TWOFOLD]
            yield Row("live", f"twofold, {what}, to {who}", ratio=ours.cpu_s / rival.cpu_s, note="CPU-seconds")


def _live_rows(name: str, found: live.Live, told: str, events: int) -> list[Row]:
    usage = Usage(found.wall_s, found.cpu_s, "")
    per_million = f"{found.cpu_s / events * 1e6:.1f} CPU-s per million; {told}"
    rows = [Row(**{**vars(_row("live", name, usage, events)), "note": per_million})]
    if found.quiet:
        cores = found.quiet.cores
        rows.append(
            Row(
                "live",
                f"{name}, {live.TRICKLE_PER_S} events/s",
                cpu_s=cores * found.quiet.seconds,
                wall_s=found.quiet.seconds,
                ratio=cores,
                note="cores used",
            )
        )
    return rows


def _bounds(found: live.Live, events: int) -> list[Row]:
    """What ingest alone has to keep."""
    rows = [
        Row("live", "ingest alone, CPU-s per million", ratio=found.cpu_s / events * 1e6, bound=f"<= {LANDING_CPU_S}")
    ]
    if quiet := found.quiet:
        files, size = quiet.a_day(quiet.data_files), quiet.a_day(quiet.metadata_bytes) / 1e9
        a_commit = f"{quiet.data_files / max(1, quiet.commits):.2f} a commit, {quiet.commits} commits"
        size_note = "extrapolated: see `commits` for how it grows"
        rows += [
            Row("live", "ingest alone, cores at a trickle", ratio=quiet.cores, bound=f"<= {TRICKLE_CORES}"),
            Row("live", "data files a day", ratio=files, bound=f"<= {FILES_A_DAY}", note=a_commit),
            Row("live", "GB of metadata a day", ratio=size, bound=f"< {METADATA_GB}", note=size_note),
        ]
    return rows


def commits_of(bench: Bench) -> list[Row]:
    """A day of small commits to one table."""
    found = commits.measure(bench.settings, COMMITS, min(commits.A_DAY, bench.events // 50))
    compared = "the last thousand over the first"
    rows = [Row("commits", f"{found.commits:,} commits", found.wall_s)]
    for what, first, last in (
        ("a commit", found.first_commit_s, found.last_commit_s),
        ("a commit and its share of tidying", found.first_with_tidying_s, found.last_with_tidying_s),
        ("opening for a query", found.first_open_s, found.last_open_s),
    ):
        times = f"{last * 1000:.1f} ms over {first * 1000:.1f} ms: {compared}"
        rows.append(Row("commits", what, last, ratio=last / first, bound=f"<= {AGED_CEILING}", note=times))
    size = found.metadata_a_day / 1e9
    rows.append(
        Row("commits", "GB of metadata a day", ratio=size, bound=f"< {METADATA_GB}", note="as written, one table")
    )
    return rows


def formats_of(_bench: Bench) -> list[Row]:
    """What the contract costs in each format."""
    found = formats.measure()
    rows = [
        Row(
            "formats",
            name,
            cpu_s=cost.cpu_s,
            events_per_cpu_s=cost.records_per_cpu_s,
            note=f"{cost.mb_per_cpu_s:.0f} MB/CPU-s",
        )
        for name, cost in found.items()
    ]
    flat, confluent = found["flat"], found["flat, confluent-json"]
    nested, avro = found["nested"].mb_per_cpu_s / flat.mb_per_cpu_s, found["flat, avro, 10 fields"].records_per_cpu_s
    behind = flat.cpu_s / confluent.cpu_s
    return [
        *rows,
        Row("formats", "nested JSON to flat, MB/CPU-s", ratio=nested, bound=f">= {NESTED_FLOOR}"),
        Row("formats", "confluent-json to JSON", ratio=behind, bound=f">= {CONFLUENT_FLOOR}"),
        Row("formats", "Avro, 10 fields, thousand records/CPU-s", ratio=avro / 1000, bound=f">= {AVRO_FLOOR}"),
    ]


PARTS: dict[str, Callable[[Bench], Iterable[Row]]] = {
    "producer": producer,
    "drain": drain,
    "live": live_of,
    "commits": commits_of,
    "union": union,
    "query": query,
    "latency": latency_of,
    "dags": overhead,
    "formats": formats_of,
}


def _row(part: str, what: str, usage: Usage, events: float) -> Row:
    return Row(part, what, usage.wall_s, usage.cpu_s, events / usage.wall_s, events / usage.cpu_s)


def _rated(row: Row, ratio: float | None, bound: str, note: str) -> Row:
    return Row(**{**vars(row), "ratio": ratio, "bound": bound, "note": note})


def _stages(who: str, drained: Drained, events: int) -> list[Row]:
    rows = [_row("drain", f"{who}, in all", drained.usage, events)]
    for name, stage in drained.stages.items():
        rates = (stage.events / stage.wall_s, stage.events / stage.cpu_s) if stage.events else (None, None)
        rows.append(Row("drain", f"{who}, {name}", stage.wall_s, stage.cpu_s, *rates))
    return rows


def _per_cpu_s(drained: Drained) -> float:
    steady = drained.stages[STEADY]
    return steady.events / steady.cpu_s if steady.cpu_s else 0.0
