"""2 Speed layer: producer, landing, views, the driver."""

from __future__ import annotations

from monitoring.boards.model import GREEN, RED, Board, Panel, Query, Row, upto
from monitoring.boards.promql import P, gained, last, of, per_second, quantile

LANDING = Row(
    "Landing",
    (
        Panel(
            "Outcomes",
            "Records landed per second, by what became of them.",
            "rps",
            (
                Query(
                    per_second("twofold_stream_outcomes_total", "pipeline", "outcome"),
                    "{{pipeline}} {{outcome}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Behind, by partition",
            "Records in Kafka that have not landed. One partition that stands out has a hot key, or a slow leader.",
            "short",
            (Query(of("twofold_stream_offsets_behind"), "{{pipeline}} {{partition}}"),),
            runbook="stream-lagging",
        ),
        Panel(
            "Since progress",
            "Age of the last finished batch, or of the last word that Kafka has nothing new; and of the driver's sign "
            "of life. The landing is stalled at 25 s and the trigger.",
            "s",
            (
                Query(of("pipeline:stream_progress_age:seconds"), "{{pipeline}} landing"),
                Query(of("pipeline:stream_heartbeat_age:seconds"), "{{pipeline}} driver"),
            ),
            steps=upto(20, 30),
            base=GREEN,
            runbook="stream-stalled",
        ),
        Panel(
            "Rows in and processed",
            "Rate at which rows arrive, and at which the last batch went. Where arrival is the faster one for long, "
            "the job falls behind.",
            "rps",
            (
                Query(of("twofold_stream_input_rows_per_second"), "{{pipeline}} {{query}} in"),
                Query(of("twofold_stream_processed_rows_per_second"), "{{pipeline}} {{query}} processed"),
            ),
            runbook="stream-lagging",
        ),
        Panel(
            "Batch duration",
            "99th percentile: of every hundred batches one takes longer. Far above the trigger, data get old.",
            "s",
            (
                Query(
                    quantile(0.99, "twofold_stream_batch_seconds", "pipeline", "query"),
                    "{{pipeline}} {{query}}",
                ),
            ),
            steps=upto(10, 25),
            base=GREEN,
            runbook="stream-stalled",
        ),
        Panel(
            "Parts of the last batch",
            "Where the time of the landing's last batch went: reading offsets, planning, writing, committing.",
            "s",
            (
                Query(
                    f'twofold_stream_batch_part_seconds{{{P},query="log",part!="triggerExecution"}}',
                    "{{pipeline}} {{part}}",
                ),
            ),
            stacked=True,
        ),
    ),
)
VIEWS = Row(
    "Views",
    (
        Panel(
            "Watermark",
            "Event time before which a row is late for a view. In a replay it is as old as the events.",
            "dateTimeAsIso",
            (Query("1000 * " + of("twofold_stream_watermark_timestamp_seconds"), "{{pipeline}} {{query}}"),),
            "stat",
        ),
        Panel(
            "Speed of event time",
            "Seconds of event time that the watermark moves per second: 1 live, more in a replay, 0 where it stands.",
            "short",
            (
                Query(
                    f"clamp_min(deriv(({of('twofold_stream_watermark_timestamp_seconds')} > 0)[5m:]), 0)",
                    "{{pipeline}} {{query}}",
                ),
            ),
        ),
        Panel(
            "Late rows",
            "Rows per second that were too late for a view. The next union heals their windows.",
            "rps",
            (
                Query(
                    per_second("twofold_stream_late_total", "pipeline", "query"),
                    "{{pipeline}} {{query}}",
                ),
            ),
            runbook="late-high",
        ),
        Panel(
            "State, rows",
            "Rows that the views keep as state: of each open window and group, of each id that may come again.",
            "short",
            (Query(of("twofold_stream_state_rows"), "{{pipeline}} {{query}}"),),
        ),
        Panel(
            "State, memory",
            "Memory of that state.",
            "bytes",
            (Query(of("twofold_stream_state_bytes"), "{{pipeline}} {{query}}"),),
        ),
        Panel(
            "Queries started again",
            "Starts of a query after a failure, over 15 minutes. After twelve failures in a row the job ends.",
            "short",
            (
                Query(
                    gained(of("twofold_stream_retries_total"), "15m", "pipeline", "query"),
                    "{{pipeline}} {{query}}",
                ),
            ),
            steps=upto(1, 6),
            base=GREEN,
            runbook="stream-stalled",
        ),
    ),
)
PRODUCER = Row(
    "Producer",
    (
        Panel(
            "Sent and acknowledged",
            "Records per second handed to the Kafka client, and acknowledged by the broker. They belong together.",
            "rps",
            (
                Query(per_second("twofold_producer_sent_total", "pipeline"), "{{pipeline}} sent"),
                Query(
                    per_second("twofold_producer_acked_total", "pipeline"),
                    "{{pipeline}} acknowledged",
                ),
            ),
            runbook="producer-down",
        ),
        Panel(
            "Bytes",
            "Bytes of keys and values sent per second, before compression.",
            "Bps",
            (Query(per_second("twofold_producer_bytes_total", "pipeline"), "{{pipeline}}"),),
        ),
        Panel(
            "Time to acknowledgement",
            "Median and 99th percentile of one batch each second.",
            "s",
            tuple(
                Query(
                    quantile(share, "twofold_producer_ack_seconds", "pipeline"),
                    f"{{{{pipeline}}}} {name}",
                )
                for share, name in ((0.5, "median"), (0.99, "99th"))
            ),
            steps=upto(1, 10),
            base=GREEN,
            runbook="kafka-away",
        ),
        Panel(
            "Queue",
            "Records sent and not yet acknowledged. It grows while the broker is away.",
            "short",
            (Query(of("twofold_producer_queue_records"), "{{pipeline}}"),),
            runbook="kafka-away",
        ),
        Panel(
            "Position",
            "All records of the source before this one are acknowledged; a killed producer goes on from here.",
            "locale",
            (Query(last("twofold_producer_position"), "{{pipeline}}"),),
            "stat",
        ),
        Panel(
            "Refused",
            "Records too large for the broker, and runs that it refused for good, over 15 minutes.",
            "short",
            (
                Query(
                    of("pipeline:producer_too_large:increase15m"),
                    "{{pipeline}} too large",
                ),
                Query(
                    of("pipeline:producer_refused:increase15m"),
                    "{{pipeline}} runs refused",
                ),
            ),
            steps=((1, RED),),
            base=GREEN,
            runbook="producer-failing",
        ),
    ),
)
DRIVER = Row(
    "Spark driver",
    (
        Panel(
            "Heap",
            "Memory of the driver's JVM, used and at most, of each running job. Always near the top: raise "
            "`TWOFOLD_SPARK_DRIVER_MEMORY`.",
            "bytes",
            (
                Query(of("spark_driver_jvm_heap_used"), "{{pipeline}} {{kind}}"),
                Query(of("spark_driver_jvm_heap_max"), "{{pipeline}} {{kind}} at most"),
            ),
        ),
        Panel(
            "Tasks at work",
            "Tasks that the driver's threads work on, of each running job.",
            "short",
            (Query(of("spark_driver_executor_threadpool_activeTasks"), "{{pipeline}} {{kind}}"),),
        ),
        Panel(
            "Waiting stages",
            "Stages that wait for others. Many, for long: the machine is too small for what runs at once.",
            "short",
            (Query(of("spark_driver_DAGScheduler_stage_waitingStages"), "{{pipeline}} {{kind}}"),),
        ),
    ),
)

BOARD = Board(
    "twofold-speed",
    "2 Speed layer",
    "From the producer over Kafka into stream_log and the streamed views.",
    (LANDING, VIEWS, PRODUCER, DRIVER),
)
