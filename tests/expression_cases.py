"""Expressions and rows on which Spark and DuckDB must agree, whatever the rows hold."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import duckdb

from twofold.definition.types import FieldType

COLUMNS = {
    "i": "int",
    "j": "int",
    "l": "long",
    "x": "double",
    "d": "decimal(10,2)",
    "w": "decimal(38,4)",
    "s": "string",
    "b": "boolean",
    "ts": "timestamp",
    "dt": "date",
}
TYPES: dict[str, FieldType | None] = {name: FieldType.parse(text) for name, text in COLUMNS.items()}
SPARK_SCHEMA = ", ".join(f"{name} {kind.spark}" for name, kind in TYPES.items() if kind)

_INT, _LONG = 1 << 31, 1 << 63


def _at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


ROWS: list[tuple[Any, ...]] = [
    (0, 0, 0, 0.0, Decimal("0.00"), Decimal("0"), "", True, _at(1970, 1, 1), date(1970, 1, 1)),
    (
        7,
        -2,
        7,
        2.675,
        Decimal("2.67"),
        Decimal("1.2345"),
        "abc",
        False,
        _at(2024, 2, 29, 23, 59, 59),
        date(2024, 2, 29),
    ),
    (-7, 2, -9, -2.5, Decimal("-2.50"), Decimal("-7.5"), " it's ", True, _at(2013, 1, 6, 12, 30), date(2024, 12, 31)),
    (
        _INT - 1,
        -1,
        _LONG - 1,
        1e300,
        Decimal("99999999.99"),
        Decimal("9" * 34),
        "a%b_c",
        False,
        _at(1969, 12, 31, 23),
        None,
    ),
    (
        -_INT,
        3,
        -_LONG,
        -1e-9,
        Decimal("-99999999.99"),
        Decimal("-0.0001"),
        "a\\b\n",
        None,
        _at(2100, 1, 1),
        date(1900, 1, 1),
    ),
    (
        5,
        10,
        1 << 53,
        0.125,
        Decimal("0.05"),
        Decimal("0.0500"),
        "ÄÖ€ 𝄞",
        True,
        _at(2024, 7, 1, 0, 0, 1),
        date(2024, 7, 7),
    ),
    (None,) * 10,
    (
        42,
        42,
        42,
        1.005,
        Decimal("1.00"),
        Decimal("0.5"),
        "ABC",
        False,
        _at(2024, 7, 6, 6, 6, 6, 999999),
        date(2024, 7, 6),
    ),
]

SCALARS = r"""
i + j; i - j; i * j; i / j; i % j; i div j; -i; abs(i); i + 1; i * 1000000; i + l; l * l; -l; abs(l); l div i; l % j
x + i; x * d; x / 0; -x; abs(x); x % 2; d + d; d * d; d + i; d * i; d - 1.5; d * 1.5; d / i; d % 3; -d; abs(d); d + x
i + 3000000000; i * 1.0; i + 1e3; 2L * i; i * -1; (i + j) * (i - j) - l
round(x); round(x, 2); round(x, 0); round(d); round(d, 1); round(d, 5); round(i, 2); round(w, 2); round(x * 100, 1)
round(2.4999999999999996e0); round(0.12344999999999999e0, 4); round(4.9999999999e-10, 9); round(x / 7, 9)
ceil(x * 1e300 * 1e300 - x * 1e300 * 1e300); floor(-x * 1e300 * 1e300); l between 9007199254740993 and 1e300
unix_timestamp(timestamp '9999-12-31 23:59:59.999999'); unix_timestamp(timestamp '1969-12-31 23:59:59.999999')
ceil(x / 1e200); floor(x / 1e200); ceil(d); floor(d); ceil(i); floor(w); round(i / j, 2)
i > j; i = j; i <> j; i <= 5; i == 7; i != 7; x > d; l >= x; d = 2.67; d = 2.5; w > i; s = 'abc'; s < 'b'; s >= 'ÄÖ'
i <=> j; s is distinct from 'abc'; b = true; b is true; b is not true; b is null; b is not null; s is null
b and i > 0
b or i > 0; not b; not (b and i > 0); !b; i in (7, 42, -7); i not in (7, 42); s in ('abc', 'ABC'); i in (7, null)
i between -7 and 7; i not between 0 and 10; d between 0 and 2.67; x between i and j; s between 'a' and 'b'
s like 'a%'; s like '%\'%'; s like '_b_'; s not like 'a%'; s ilike 'ABC'; s not ilike 'a%'; s rlike 'b'
s rlike '^[a-z]+$'
s rlike '\\d|b'; s rlike r'\s'; s rlike '(?i)bC'; regexp_like(s, '[^a-z]{2,}')
s = 'a\\b\n'; s = ' it\'s '; concat(s, '-', s); s || 'x'; s || null; length(s); char_length(s); upper(s); lower(s)
trim(s); ltrim(s); rtrim(s); substring(s, 2); substring(s, 1, 2); substr(s, 3, 1); left(s, 2); right(s, 2); left(s, 0)
startswith(s, 'a'); endswith(s, 'c'); contains(s, '%'); contains(s, ''); startswith(s, s)
case when i > 0 then i when i < 0 then l else 0 end; case i when 7 then 'seven' when 42 then s end
case when b then 1 end
if(b, i, x); if(b, d, i); if(i > 0, s, null); coalesce(i, 0); coalesce(i, x, d); nvl(s, 'none'); ifnull(d, 0)
nullif(i, 7)
greatest(i, j); least(i, j, 3); greatest(x, d); least(s, 'b'); greatest(dt, date '2024-01-01'); coalesce(b, false)
cast(x / 1e200 as int); cast(x as long); cast(d as int); cast(d as double); cast(i as double); cast(i as decimal(5,2))
cast(w as decimal(10,2)); cast(l as int); cast(b as int); cast(i as string); cast(b as string); cast(dt as string)
try_cast(x as int); i::bigint; int(d); double(i); cast(i as decimal(10,0)); cast(d as decimal(4,1)); cast(l as double)
year(ts); quarter(ts); month(ts); day(ts); dayofmonth(ts); hour(ts); minute(ts); second(ts); dayofweek(ts)
year(dt); dayofweek(dt); hour(null); date_trunc('day', null)
date_trunc('hour', ts); date_trunc('week', ts); date_trunc('month', ts); date_trunc('minute', ts)
date_trunc('YEAR', ts)
date_trunc('day', ts); to_date(ts); date(ts); cast(ts as date); cast(dt as timestamp); unix_timestamp(ts)
ts > '2013-01-06'; ts = '2024-02-29T23:59:59Z'; ts = timestamp '2013-01-06 12:30:00'; ts >= date '2024-01-01'
dt > '2024-02-28'
ts between '2000-01-01' and '2024-07-01T02:00:00+02:00'; dt = cast(ts as date); dt < ts
ts in ('1970-01-01', '2100-01-01')
ts + interval 2 hours; ts - interval '90' seconds; ts + interval 1 week > '2024-03-01'; ts - interval 1 day < dt
unix_timestamp(ts) - 86400 * 365; hour(ts) * 60 + minute(ts); year(ts) * 100000000; length(s) * 1000000000
"""

MEASURES = r"""
count(*); count(1); count(s); count_if(i > 0); count_if(b); sum(i); sum(j); sum(l); sum(d); sum(w); sum(x / 1e200)
min(i); max(l); min(x); max(d); min(s); max(s); min(b); max(b); min(ts); max(dt); avg(i); avg(d); avg(j * 1.5)
sum(if(b, 1, 0)); sum(case when s like 'a%' then d else 0 end); avg(case when i > 0 then x / 1e200 end)
count(*) filter (where i > 0); sum(d) filter (where b); avg(j) filter (where not b); count_if(b) filter (where i > 0)
min(j) filter (where i is null); sum(j) / count(*); count_if(b) / count(*); max(i) - min(i); max(l) - min(l)
round(avg(j), 2); round(avg(d), 3); coalesce(sum(j), 0) + 1; sum(d) * 1.5; sum(i * j); sum(l * l); sum(j) div count(j)
unix_timestamp(max(ts)) - unix_timestamp(min(ts)); if(count(*) > 3, sum(j), null); abs(min(j))
cast(avg(j) as int); -sum(j)
greatest(sum(i), sum(j)); sum(d) > 10; concat(min(s), max(s)); count(*) % 2 = 0; date_trunc('hour', max(ts))
sum(d) + avg(d)
"""


def listed(text: str) -> list[str]:
    """The expressions of one of the lists above."""
    return [part.strip() for line in text.strip().splitlines() for part in line.split("; ")]


def same(one: object, other: object) -> bool:
    """Equal as `prove` compares: exact, but for doubles, which may differ by 1e-9 of their size."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9) or (math.isnan(one) and math.isnan(other))
    if isinstance(one, datetime) and isinstance(other, datetime):
        return one.timestamp() == other.timestamp()
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def in_duckdb() -> duckdb.DuckDBPyConnection:
    """The rows as table `t`."""
    connection = duckdb.connect()
    connection.execute("SET timezone = 'UTC'")
    columns = ", ".join(f'"{name}" {kind.duckdb}' for name, kind in TYPES.items() if kind)
    connection.execute(f"CREATE TABLE t ({columns})")
    connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(TYPES))})", ROWS)
    return connection
