"""The records of a run: a pure function of their number, one JSON line each, about 214 bytes.

One in a hundred repeats the record 50 before it, one in ten is up to an hour out of order, one in forty is cancelled
(filtered out by the definition). Event time covers two days, so windows close while the stream is drained.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import duckdb

_RECORDS = """
SELECT
  format('{}-{:05d}-{}-{:012d}', carrier, flight, origin, number) AS event_id,
  strftime(scheduled_at, '%Y-%m-%dT%H:%M:%S.%gZ') AS scheduled_at,
  origin, dest, carrier, flight, tailnum, delay_min, distance_mi, cancelled
FROM (
  SELECT
    number,
    TIMESTAMP '2026-01-01' + to_microseconds(number * (172800000000 // $events))
      - to_seconds(CASE WHEN roll % 10 = 3 THEN roll // 10 % 3600 ELSE 0 END) AS scheduled_at,
    ['EWR', 'JFK', 'LGA'][1 + roll // 7 % 3] AS origin,
    ['BOS', 'ORD', 'ATL', 'LAX', 'MIA', 'SFO', 'DEN', 'SEA'][1 + roll // 11 % 8] AS dest,
    ['UA', 'AA', 'B6', 'DL', 'EV'][1 + roll // 13 % 5] AS carrier,
    CAST(1 + roll // 17 % 6000 AS INTEGER) AS flight,
    format('N{:05d}', roll // 19 % 4000) AS tailnum,
    CAST(roll // 23 % 200 AS INTEGER) - 30 AS delay_min,
    CAST(100 + roll // 29 % 2500 AS INTEGER) AS distance_mi,
    roll // 31 % 40 = 0 AS cancelled
  FROM (
    SELECT number, CAST(hash(number) % 1000000007 AS BIGINT) AS roll
    FROM (SELECT CASE WHEN n % 100 = 99 THEN n - 50 ELSE n END AS number, n FROM range($events) AS numbers(n))
    ORDER BY n
  )
)
"""


def write(target: Path, events: int) -> None:
    """Write `events` records as JSON lines."""
    with duckdb.connect() as connection:
        # A COPY takes no parameters.
        connection.sql(_RECORDS, params={"events": events}).create("records")
        connection.execute(f"COPY records TO '{target}' (FORMAT json)")


def split(source: Path, counts: Mapping[Path, int]) -> None:
    """The first lines of a file, distributed to other files in order, a given number to each."""
    with source.open("rb") as records:
        for target, count in counts.items():
            with target.open("wb") as part:
                part.writelines(islice(records, count))
