"""The contract, once for both layers: texts in, typed event columns and an outcome out.

    Kafka value ──► read_json ──┐
    JSON line   ──► read_json ──┼─► p (one text per field), fault ─► judge ─► event columns, outcome, reason, payload
    CSV, Parquet row ───────────┘

Every field comes in as text and is cast here, so a fault is always known by its field: missing, not an int, out of
range. Decimals alone are parsed by the JSON reader itself, as it turns other numbers' text into doubles first.
A record is parsed once; nothing below the parse may filter, or the optimizer would copy the parse into the filter.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from twofold import tables
from twofold.definition.model import Field, Pipeline
from twofold.definition.patterns import whole_value
from twofold.definition.types import MAX_DECIMAL_PRECISION, FieldType

# With a blank, so that no field can have the same name.
PARSED = "parsed record"
"""Name of the struct column that `judge` reads: the declared fields, and CORRUPT."""
CORRUPT = "_corrupt_record"
"""Not null where the record, or one of its decimals, could not be parsed."""
FAULT = "parse fault"
"""Name of the column with a reason found before parsing, or null."""
NOT_JSON = "not JSON: expected one object"

_EXTRA_SCALE = 6
_SHOWN_CHARACTERS = 40


def wide(declared: FieldType) -> str:
    """A decimal type with room for more digits than declared, so that too many digits are seen, not rounded away.

    >>> wide(FieldType("decimal", 10, 2))
    'decimal(16,8)'
    >>> wide(FieldType("decimal", 38, 2))
    'decimal(38,2)'
    """
    extra = min(_EXTRA_SCALE, MAX_DECIMAL_PRECISION - declared.precision)
    return f"decimal({declared.precision + extra},{declared.scale + extra})"


def parsed_schema(pipeline: Pipeline) -> str:
    """Schema of `p`: texts, but for decimals."""
    types = {f.name: wide(f.type) if f.type.name == "decimal" else "string" for f in pipeline.event.fields.values()}
    return ", ".join(f"`{name}` {kind}" for name, kind in {**types, CORRUPT: "string"}.items())


def read_json(frame: DataFrame, pipeline: Pipeline, value: Column) -> DataFrame:
    """Add `p` and `fault` to a frame, from the bytes of one JSON object a row."""
    options = {
        "columnNameOfCorruptRecord": CORRUPT,
        "allowSingleQuotes": "false",
        "allowNonNumericNumbers": "false",
    }
    readable = F.when(F.col(FAULT).isNull(), value.cast("string"))
    faulty = frame.withColumn(FAULT, _unreadable(value, pipeline))
    return faulty.withColumn(PARSED, F.from_json(readable, parsed_schema(pipeline), options))


def _unreadable(value: Column, pipeline: Pipeline) -> Column:
    """Why a value is not even parsed, or null: it is empty, too large, in another encoding, or no object."""
    text = value.cast("string")
    size, limit = F.octet_length(value), pipeline.event.max_bytes
    space = F.lit(" \t\r\n")
    not_object = (
        F.when(F.trim(text, space) == "", F.lit("empty: the record has no value"))
        # The parser stops at the end of the first object and would not see what follows it.
        .when(~F.rtrim(text, space).endswith("}"), F.lit(NOT_JSON))
    )
    return (
        F.when(value.isNull(), F.lit("empty: the record has no value"))
        .when(size > limit, _say("too large: ", F.octet_length(value), f" bytes, the limit is {limit}"))
        .when(~F.is_valid_utf8(text), F.lit("unknown encoding: not UTF-8"))
        .when(~text.endswith("}"), not_object)
    )


def judge(frame: DataFrame, pipeline: Pipeline, received_at: Column, payload: Column) -> DataFrame:
    """Event columns, `outcome`, `reason` and `payload`, and the frame's other columns, in place of `p` and `fault`.

    `received_at` is what "from the future" is judged against; `payload` the record as it came, kept where rejected.
    """
    fields = pipeline.event.fields.values()
    kept = [name for name in frame.columns if name not in (PARSED, FAULT)]
    typed = frame.select(
        *kept,
        *(_typed(field).alias(field.name) for field in fields),
        PARSED,
        FAULT,
    )
    judged = typed.withColumn("reason", _reason(pipeline, received_at))
    accepted = F.col("reason").isNull()
    return judged.select(
        *kept,
        *(F.when(accepted, F.col(field.name)).alias(field.name) for field in fields),
        _outcome(pipeline).alias("outcome"),
        "reason",
        F.when(~accepted, payload).alias("payload"),
    )


def _outcome(pipeline: Pipeline) -> Column:
    # A filter that gives null means filtered.
    wanted = F.lit(True) if pipeline.filter is None else F.coalesce(F.expr(pipeline.filter.spark), F.lit(False))
    return (
        F.when(F.col("reason").isNotNull(), F.lit(tables.REJECTED))
        .when(wanted, F.lit(tables.ACCEPTED))
        .otherwise(F.lit(tables.FILTERED))
    )


def _text(field: Field) -> Column:
    return F.col(f"{PARSED}.{field.name}")


def _typed(field: Field) -> Column:
    """The field's value in its type, or null where its text is no such value."""
    text, kind = _text(field), field.type.name
    if kind == "string":
        return text
    if kind == "boolean":
        lower = F.lower(text)
        return F.when(lower == "true", F.lit(True)).when(lower == "false", F.lit(False))
    if kind == "decimal":
        exact = F.expr(f"try_cast(`{PARSED}`.`{field.name}` AS {field.type.spark})")
        return F.when(exact == text, exact)
    value = F.expr(f"try_cast(`{PARSED}`.`{field.name}` AS {field.type.spark})")
    if kind == "double":
        # The cast also takes NaN, Infinity and Java's suffixes (1d, 1f): none is a JSON number.
        return F.when(~F.isnan(value) & (F.abs(value) != float("inf")) & ~text.rlike("[dDfF]\\s*$"), value)
    if kind == "timestamp":
        # The cast also takes 2013 and T12:00; the latter would mean today, which no replay repeats.
        return F.when(text.like("____-__-__%"), value)
    if kind == "date":
        return F.when(F.length(text) == 10, value)
    return value


def _reason(pipeline: Pipeline, received_at: Column) -> Column:
    """All faults of a record in one sentence, or null. Built only for the few that have one."""
    faults = [found for field in pipeline.event.fields.values() for found in _faults(field)]
    faults.append(_from_the_future(pipeline, received_at))
    any_fault = _any(condition for condition, _ in faults)
    broken = _any_null(pipeline) & F.col(f"{PARSED}.{CORRUPT}").isNotNull()
    listed = F.concat_ws("; ", *(F.when(condition, text) for condition, text in faults))
    return (
        F.when(F.col(FAULT).isNotNull(), F.col(FAULT))
        .when(F.col(PARSED).isNull() | broken, F.lit(NOT_JSON))
        .when(any_fault, listed)
    )


def _any_null(pipeline: Pipeline) -> Column:
    """Whether the parse gave nothing at all, as it does for what is no JSON object."""
    return reduce(Column.__and__, (_text(field).isNull() for field in pipeline.event.fields.values()))


def _faults(field: Field) -> Iterable[tuple[Column, Column]]:
    """(condition, sentence) for each way this field may break the contract; conditions are never null."""
    value, text = F.col(field.name), _text(field)
    name, kind = field.name, str(field.type)
    article = "an" if kind[0] in "aeiou" else "a"
    if field.type.name == "decimal":
        unparsed = text.isNull() & F.col(f"{PARSED}.{CORRUPT}").isNotNull()
        yield unparsed | (text.isNotNull() & value.isNull()), F.lit(f"{name} is not {article} {kind}")
        missing = text.isNull() & ~unparsed
    else:
        missing = text.isNull()
        if field.type.name != "string":
            shown = _say(f"{name} is not {article} {kind}: ", F.substring(text, 1, _SHOWN_CHARACTERS))
            yield text.isNotNull() & value.isNull(), shown
    if field.required:
        yield missing, F.lit(f"missing {name}")
    yield from _rule_faults(field, value)


def _rule_faults(field: Field, value: Column) -> Iterable[tuple[Column, Column]]:
    shown = F.substring(value.cast("string"), 1, _SHOWN_CHARACTERS)
    name, typed = field.name, field.type.spark
    if field.min is not None:
        yield _true(value < _literal(field.min, typed)), _say(f"{name} out of range: ", shown, f" < {field.min}")
    if field.max is not None:
        yield _true(value > _literal(field.max, typed)), _say(f"{name} out of range: ", shown, f" > {field.max}")
    if field.one_of:
        allowed = ", ".join(str(item) for item in field.one_of)
        listed = value.isin([_literal(item, typed) for item in field.one_of])
        yield _true(~listed), _say(f"{name} not one of {allowed}: ", shown)
    if field.pattern is not None:
        whole = whole_value(field.pattern)
        yield _true(~value.rlike(whole)), _say(f"{name} does not match {field.pattern}: ", shown)
    if field.max_length is not None:
        length = F.length(value)
        yield _true(length > field.max_length), _say(f"{name} too long: ", length, f" > {field.max_length} characters")


def _from_the_future(pipeline: Pipeline, received_at: Column) -> tuple[Column, Column]:
    time = F.col(pipeline.event.time)
    seconds = pipeline.event.max_future.total_seconds()
    limit = received_at + F.expr(f"make_dt_interval(0, 0, 0, {seconds:f})")
    said = _say(
        "from the future: ", pipeline.event.time, " is ", time.cast("string"), ", received ", received_at.cast("string")
    )
    return _true(time > limit), said


def _literal(value: object, spark_type: str) -> Column:
    return F.lit(str(value)).cast(spark_type)


def _true(condition: Column) -> Column:
    return F.coalesce(condition, F.lit(False))


def _any(conditions: Iterable[Column]) -> Column:
    return reduce(Column.__or__, conditions)


def _say(*parts: Column | str) -> Column:
    return F.concat(*(part if isinstance(part, Column) else F.lit(part) for part in parts))
