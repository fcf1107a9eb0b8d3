"""The records of a run: a pure function of their number, one JSON line each, about 214 bytes.

One in a hundred repeats the record 50 before it, one in ten is up to an hour out of order, one in forty is cancelled
(filtered out by the definition). Event time covers two days, so windows close while the stream is drained.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

TWO_DAYS_US = 172_800_000_000


def rows(first: int, count: int, step_us: int) -> str:
    """The query of the records with these numbers, `n`, in order, one each `step_us` of event time."""
    return f"""
SELECT
  n,
  format('{{}}-{{:05d}}-{{}}-{{:012d}}', carrier, flight, origin, number) AS event_id,
  scheduled_at, origin, dest, carrier, flight, tailnum, delay_min, distance_mi, cancelled
FROM (
  SELECT
    n, number,
    TIMESTAMP '2026-01-01' + to_microseconds(number * {step_us})
      - to_seconds(CASE WHEN roll % 10 = 3 THEN roll // 10 % 3600 ELSE 0 END) AS scheduled_at,
    ['EWR', 'JFK', 'LGA'][1 + roll // 7 % 3] AS origin,
    ['BOS', 'ORD', 'ATL', 'LAX', 'MIA', 'SFO', 'DEN', 'SEA'][1 + roll // 11 % 8] AS dest,
    ['UA', 'AA', 'B6', 'DL', 'EV'][1 + roll // 13 % 5] AS carrier,
    CAST(1 + roll // 17 % 6000 AS INTEGER) AS flight,
    format('N{{:05d}}', roll // 19 % 4000) AS tailnum,
    CAST(roll // 23 % 200 AS INTEGER) - 30 AS delay_min,
    CAST(100 + roll // 29 % 2500 AS INTEGER) AS distance_mi,
    roll // 31 % 40 = 0 AS cancelled
  FROM (
    SELECT n, number, CAST(hash(number) % 1000000007 AS BIGINT) AS roll
    FROM (SELECT CASE WHEN n % 100 = 99 THEN n - 50 ELSE n END AS number, n
          FROM range({first}, {first + count}) AS numbers(n))
    ORDER BY n
  )
)
"""


def write(target: Path, events: int, first: int = 0, step_us: int = 0) -> None:
    """Write `events` records from the number `first` on as JSON lines; by default they cover two days."""
    query = rows(first, events, step_us or TWO_DAYS_US // events)
    text = "strftime(scheduled_at, '%Y-%m-%dT%H:%M:%S.%gZ') AS scheduled_at"
    with duckdb.connect() as connection:
        connection.sql(f"SELECT * EXCLUDE n REPLACE ({text}) FROM ({query})").create("records")
        connection.execute(f"COPY records TO '{target}' (FORMAT json)")
