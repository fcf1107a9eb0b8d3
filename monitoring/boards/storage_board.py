"""What all stands on: Kafka, the store, the disk; and the monitoring itself."""

from __future__ import annotations

from monitoring.boards.panels import MINIO, MINIO_FAILED, RATE, Board, Panel, atleast, bad_from, good_from, stat, upto


def _by_topic(counter: str) -> str:
    return f"sum by (topic) (rate(kafka_server_brokertopicmetrics_{counter}_total[{RATE}]))"


_BROKER = (
    stat(
        "Broker",
        "Whether the broker answers Prometheus.",
        "short",
        {"{{instance}}": 'min by (instance) (up{job="kafka"})'},
        good_from(1),
        width=4,
        words=((0, "down"), (1, "up")),
        runbook="kafka-away",
    ),
    stat(
        "Under-replicated",
        "Partitions with fewer replicas than declared.",
        "short",
        {"": "sum(kafka_server_replicamanager_underreplicatedpartitions)"},
        bad_from(1),
        width=4,
        runbook="kafka-under-replicated",
    ),
    stat(
        "Offline",
        "Partitions without a leader: nobody can read or write them.",
        "short",
        {"": "sum(kafka_controller_offlinepartitionscount)"},
        bad_from(1),
        width=4,
        runbook="kafka-away",
    ),
    Panel(
        "Request handlers idle",
        "Share of time that the broker's handlers have nothing to do. Near 0 it is overloaded.",
        "percentunit",
        {"idle": "min(kafka_server_requesthandler_idle_ratio)"},
        atleast(0.1, 0.3),
        width=12,
    ),
    Panel(
        "Messages in",
        "Messages per second, by topic.",
        "cps",
        {"{{topic}}": _by_topic("messagesin")},
    ),
    Panel(
        "Bytes in and out",
        "Bytes per second that the broker takes and gives, by topic.",
        "Bps",
        {
            "{{topic}} in": _by_topic("bytesin"),
            "{{topic}} out": _by_topic("bytesout"),
        },
    ),
    Panel(
        "Request time",
        "Time that the broker takes for a request to produce or to fetch, 99th percentile. A fetch waits for data.",
        "ms",
        {"{{request}}": 'max by (request) (kafka_network_request_milliseconds{quantile="0.99"})'},
        upto(1000, 5000),
        runbook="kafka-away",
    ),
    Panel(
        "Topics",
        "Bytes of each topic on the broker's disk.",
        "bytes",
        {"{{topic}}": "sum by (topic) (kafka_log_size_bytes)"},
        runbook="disk-low",
    ),
    Panel(
        "Ends",
        "Offset after the last record of each topic, all partitions together.",
        "locale",
        {"{{topic}}": "sum by (topic) (kafka_log_end_offset)"},
    ),
    Panel(
        "Heap",
        "Memory of the broker's JVM.",
        "bytes",
        {"{{instance}}": 'sum by (instance) (jvm_memory_used_bytes{job="kafka",area="heap"})'},
    ),
)
_STORE = (
    Panel(
        "Disk free",
        "Share of the home folder's file system that is free: broker, tables and logs are on it.",
        "percentunit",
        {"free": "min(last_over_time(twofold_disk_free_bytes[1h]) / last_over_time(twofold_disk_size_bytes[1h]))"},
        atleast(0.1, 0.2),
        runbook="disk-low",
    ),
    Panel(
        "Tables",
        "Bytes of the data files of all tables, by pipeline.",
        "bytes",
        {"{{pipeline}}": 'sum by (pipeline) (last_over_time(twofold_table_bytes{pipeline=~"$pipeline"}[26h]))'},
        runbook="disk-low",
    ),
    stat(
        "MinIO",
        "Whether MinIO answers Prometheus.",
        "short",
        {"{{instance}}": 'min by (instance) (up{job="minio"})'},
        good_from(1),
        words=((0, "down"), (1, "up")),
        no_value="another store",
        runbook="store-away",
        only=MINIO,
    ),
    Panel(
        "MinIO, free",
        "Bytes that MinIO can still take.",
        "bytes",
        {"free": "min(minio_cluster_capacity_usable_free_bytes)"},
        no_value="another store",
        runbook="disk-low",
        only=MINIO,
    ),
    Panel(
        "MinIO, requests",
        "Requests per second, by what was asked.",
        "reqps",
        {"{{api}}": f"sum by (api) (rate(minio_s3_requests_total[{RATE}]))"},
        no_value="another store",
        only=MINIO,
    ),
    Panel(
        "MinIO, errors",
        "Requests per second that failed.",
        "reqps",
        {"{{api}}": f"sum by (api) (rate(minio_s3_requests_errors_total[{RATE}]))"},
        upto(0.1, 1),
        no_value="another store, or no error",
        runbook="store-away",
        only=MINIO_FAILED,
    ),
)
_ITSELF = (
    Panel(
        "Who answers",
        "Whether each exporter answers Prometheus.",
        "short",
        {"{{job}}": "min by (job) (up)"},
        atleast(0.5, 1),
        kind="state-timeline",
        words=((0, "down"), (1, "up")),
        runbook="target-down",
    ),
    Panel(
        "StatsD lines",
        "Samples that the statsd-exporter got per second. UDP drops in silence: a fall without a reason is a loss.",
        "cps",
        {"samples": f'sum(rate(statsd_exporter_samples_total{{job="statsd"}}[{RATE}]))'},
        runbook="exporter-down",
    ),
    Panel(
        "Series",
        "Series that Prometheus holds. Labels have fixed values, so this stays flat whatever the records hold.",
        "short",
        {"series": 'max(prometheus_tsdb_head_series{job="prometheus"})'},
        upto(50_000, 200_000),
    ),
)
STORAGE = Board(
    "twofold-kafka",
    "5 Kafka and storage",
    "The broker, the store, the disk, and the monitoring itself.",
    {"Kafka": _BROKER, "Store and disk": _STORE, "The monitoring itself": _ITSELF},
)
