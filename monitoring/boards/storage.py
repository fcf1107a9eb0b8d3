"""5 Kafka and storage: the broker, the store, the disk, and the monitoring itself."""

from __future__ import annotations

from monitoring.boards.model import GREEN, MINIO, MINIO_FAILED, RED, Board, Panel, Query, Row, atleast, upto
from monitoring.boards.promql import RATE

BROKER = Row(
    "Kafka",
    (
        Panel(
            "Broker",
            "Whether the broker answers Prometheus.",
            "short",
            (Query('min by (instance) (up{job="kafka"})', "{{instance}}"),),
            "stat",
            ((1, GREEN),),
            RED,
            width=4,
            words=((0, "down"), (1, "up")),
            runbook="kafka-away",
        ),
        Panel(
            "Under-replicated",
            "Partitions with fewer replicas than declared.",
            "short",
            (Query("sum(kafka_server_replicamanager_underreplicatedpartitions)"),),
            "stat",
            ((1, RED),),
            GREEN,
            width=4,
            runbook="kafka-under-replicated",
        ),
        Panel(
            "Offline",
            "Partitions without a leader: nobody can read or write them.",
            "short",
            (Query("sum(kafka_controller_offlinepartitionscount)"),),
            "stat",
            ((1, RED),),
            GREEN,
            width=4,
            runbook="kafka-away",
        ),
        Panel(
            "Request handlers idle",
            "Share of time that the broker's handlers have nothing to do. Near 0 it is overloaded.",
            "percentunit",
            (Query("min(kafka_server_requesthandler_idle_ratio)", "idle"),),
            steps=atleast(0.1, 0.3),
            base=RED,
            width=12,
        ),
        Panel(
            "Messages in",
            "Messages per second, by topic.",
            "cps",
            (Query(f"sum by (topic) (rate(kafka_server_brokertopicmetrics_messagesin_total[{RATE}]))", "{{topic}}"),),
        ),
        Panel(
            "Bytes in and out",
            "Bytes per second that the broker takes and gives, by topic.",
            "Bps",
            (
                Query(f"sum by (topic) (rate(kafka_server_brokertopicmetrics_bytesin_total[{RATE}]))", "{{topic}} in"),
                Query(
                    f"sum by (topic) (rate(kafka_server_brokertopicmetrics_bytesout_total[{RATE}]))", "{{topic}} out"
                ),
            ),
        ),
        Panel(
            "Request time",
            "Time that the broker takes for a request to produce or to fetch, 99th percentile. A fetch waits for data.",
            "ms",
            (Query('max by (request) (kafka_network_request_milliseconds{quantile="0.99"})', "{{request}}"),),
            steps=upto(1000, 5000),
            base=GREEN,
            runbook="kafka-away",
        ),
        Panel(
            "Topics",
            "Bytes of each topic on the broker's disk.",
            "bytes",
            (Query("sum by (topic) (kafka_log_size_bytes)", "{{topic}}"),),
            runbook="disk-low",
        ),
        Panel(
            "Ends",
            "Offset after the last record of each topic, all partitions together.",
            "locale",
            (Query("sum by (topic) (kafka_log_end_offset)", "{{topic}}"),),
        ),
        Panel(
            "Heap",
            "Memory of the broker's JVM.",
            "bytes",
            (Query('sum by (instance) (jvm_memory_used_bytes{job="kafka",area="heap"})', "{{instance}}"),),
        ),
    ),
)
STORE = Row(
    "Store and disk",
    (
        Panel(
            "Disk free",
            "Share of the home folder's file system that is free: broker, tables and logs are on it.",
            "percentunit",
            (
                Query(
                    "min(last_over_time(twofold_disk_free_bytes[1h]) / last_over_time(twofold_disk_size_bytes[1h]))",
                    "free",
                ),
            ),
            steps=atleast(0.1, 0.2),
            base=RED,
            runbook="disk-low",
        ),
        Panel(
            "Tables",
            "Bytes of the data files of all tables, by pipeline.",
            "bytes",
            (
                Query(
                    'sum by (pipeline) (last_over_time(twofold_table_bytes{pipeline=~"$pipeline"}[26h]))',
                    "{{pipeline}}",
                ),
            ),
            runbook="disk-low",
        ),
        Panel(
            "MinIO",
            "Whether MinIO answers Prometheus.",
            "short",
            (Query('min by (instance) (up{job="minio"})', "{{instance}}", only=MINIO),),
            "stat",
            ((1, GREEN),),
            RED,
            words=((0, "down"), (1, "up")),
            no_value="another store",
            runbook="store-away",
        ),
        Panel(
            "MinIO, free",
            "Bytes that MinIO can still take.",
            "bytes",
            (Query("min(minio_cluster_capacity_usable_free_bytes)", "free", only=MINIO),),
            no_value="another store",
            runbook="disk-low",
        ),
        Panel(
            "MinIO, requests",
            "Requests per second, by what was asked.",
            "reqps",
            (Query(f"sum by (api) (rate(minio_s3_requests_total[{RATE}]))", "{{api}}", only=MINIO),),
            no_value="another store",
        ),
        Panel(
            "MinIO, errors",
            "Requests per second that failed.",
            "reqps",
            (
                Query(
                    f"sum by (api) (rate(minio_s3_requests_errors_total[{RATE}]))",
                    "{{api}}",
                    only=MINIO_FAILED,
                ),
            ),
            steps=upto(0.1, 1),
            base=GREEN,
            no_value="another store, or no error",
            runbook="store-away",
        ),
    ),
)
ITSELF = Row(
    "The monitoring itself",
    (
        Panel(
            "Who answers",
            "Whether each exporter answers Prometheus.",
            "short",
            (Query("min by (job) (up)", "{{job}}"),),
            "state-timeline",
            atleast(0.5, 1),
            RED,
            words=((0, "down"), (1, "up")),
            runbook="target-down",
        ),
        Panel(
            "StatsD lines",
            "Samples that the statsd-exporter got per second. UDP drops in silence: a fall without a reason is a loss.",
            "cps",
            (Query(f'sum(rate(statsd_exporter_samples_total{{job="statsd"}}[{RATE}]))', "samples"),),
            runbook="exporter-down",
        ),
        Panel(
            "Series",
            "Series that Prometheus holds. Labels have fixed values, so this stays flat whatever the records hold.",
            "short",
            (Query('max(prometheus_tsdb_head_series{job="prometheus"})', "series"),),
            steps=upto(50_000, 200_000),
            base=GREEN,
        ),
    ),
)

BOARD = Board(
    "twofold-kafka",
    "5 Kafka and storage",
    "The broker, the store, the disk, and the monitoring itself.",
    (BROKER, STORE, ITSELF),
)
