-- What PyFlink does beside `benchmarks/pipelines/bench.yaml`: the same fields, filter, lateness and window.
-- Placeholders: {servers} {topic} {group} {folder}. One statement ends where a line ends with ";".

CREATE TABLE records (
    event_id STRING,
    scheduled_at TIMESTAMP_LTZ(3),
    origin STRING,
    dest STRING,
    carrier STRING,
    flight BIGINT,
    tailnum STRING,
    delay_min BIGINT,
    distance_mi BIGINT,
    cancelled BOOLEAN,
    arrived AS PROCTIME(),
    WATERMARK FOR scheduled_at AS scheduled_at - INTERVAL '2' HOUR
) WITH (
    'connector' = 'kafka',
    'topic' = '{topic}',
    'properties.bootstrap.servers' = '{servers}',
    'properties.group.id' = '{group}',
    'scan.startup.mode' = 'earliest-offset',
    'format' = 'json',
    'json.timestamp-format.standard' = 'ISO-8601',
    'json.ignore-parse-errors' = 'true'
);

CREATE TABLE files WITH (
    'connector' = 'filesystem',
    'path' = 'file://{folder}/files',
    'format' = 'parquet'
) LIKE records (EXCLUDING ALL);

CREATE TABLE windows (
    window_start TIMESTAMP(3),
    window_end TIMESTAMP(3),
    origin STRING,
    departures BIGINT,
    mean_delay DOUBLE
) WITH (
    'connector' = 'filesystem',
    'path' = 'file://{folder}/windows',
    'format' = 'parquet'
);

CREATE TEMPORARY VIEW events AS
SELECT * FROM records WHERE NOT cancelled;

-- The first of each id, for as long as the state lives.
CREATE TEMPORARY VIEW distinct_events AS
SELECT event_id, scheduled_at, origin, delay_min FROM (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY arrived) AS nth FROM events
) WHERE nth = 1;

INSERT INTO files
SELECT event_id, scheduled_at, origin, dest, carrier, flight, tailnum, delay_min, distance_mi, cancelled FROM events;

INSERT INTO windows
SELECT window_start, window_end, origin, COUNT(*), AVG(CAST(delay_min AS DOUBLE))
FROM TABLE(HOP(TABLE distinct_events, DESCRIPTOR(scheduled_at), INTERVAL '15' MINUTE, INTERVAL '1' HOUR))
GROUP BY window_start, window_end, origin;
