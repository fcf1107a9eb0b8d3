"""Plain values ─► the raw models, with every fault of shape noted and the faulty parts left out."""

from __future__ import annotations

import copy
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from twofold.definition.fault import Path, Report, near_miss, one_of, shown
from twofold.definition.fields import QUOTE_DECIMAL
from twofold.definition.raw import Raw, RawPipeline

_CUT_DECIMAL = re.compile(r"\d+\s*\)")


def read_shape(document: Mapping[str, Any], report: Report) -> RawPipeline:
    """Validate a whole document; what is at fault is noted and left out of the result."""
    rest = copy.deepcopy(dict(document))
    while True:
        try:
            raw = RawPipeline.model_validate(rest)
            break
        except ValidationError as error:
            faulty = [_note(detail, report) for detail in error.errors(include_url=False)]
            before = copy.deepcopy(rest)
            for path in faulty:
                _remove(rest, path)
            if rest == before:  # Nothing to take out means no end: go on without the sections at fault.
                rest = {key: value for key, value in rest.items() if all(path[:1] != (key,) for path in faulty)}
    for path, info in _missing(raw, ()):
        if not report.has(path):
            line = report.key_line(path if path in report.places else path[:-1])
            report.add(path, "nothing", info.description or "a value", line=line)
    return raw


def _note(detail: ErrorDetails, report: Report) -> Path:
    """Turn one of pydantic's errors into a fault; returns the path of what to leave out."""
    path: Path = tuple(detail["loc"])
    model, info = _declared(path)
    match detail["type"]:
        case "extra_forbidden":
            keys = list(model.model_fields) if model else []
            hint = QUOTE_DECIMAL if _CUT_DECIMAL.fullmatch(str(path[-1])) else near_miss(str(path[-1]), keys)
            report.add(path, f"the unknown key {shown(path[-1])}", one_of(keys), hint, line=report.key_line(path))
        case "value_error":
            report.add(path, shown(detail["input"]), str(detail["ctx"]["error"]))
        case _:
            report.add(path, shown(detail["input"]), _expected(detail, path, info), _quote_hint(detail))
    return path


def _expected(detail: ErrorDetails, path: Path, info: FieldInfo | None) -> str:
    """What is expected at `path`: the declared description, or for entries of a mapping or list their type."""
    if info is not None and info.description and isinstance(path[-1], str):
        return info.description
    kinds = {"string_type": "text", "model_type": "a mapping"}
    return kinds.get(detail["type"], str(detail["msg"]))


def _quote_hint(detail: ErrorDetails) -> str:
    scalar = detail["type"] == "string_type" and not isinstance(detail["input"], Mapping | list | None)
    return "put it in quotes to make it text" if scalar else ""


def _declared(path: Path) -> tuple[type[Raw] | None, FieldInfo | None]:
    """The model that a path's last key belongs to, and that key's declaration if it has one."""
    kind: Any = RawPipeline
    model: type[Raw] | None = None
    info: FieldInfo | None = None
    for part in path:
        if isinstance(kind, type) and issubclass(kind, Raw):
            model, info = kind, kind.model_fields.get(str(part))
            kind = _inner(info.annotation) if info else None
        else:
            args = get_args(kind)
            model, info, kind = None, None, _inner(args[-1]) if args else None
    return model, info


def _inner(annotation: object) -> Any:  # noqa: ANN401
    """The annotation without `None`."""
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is types.UnionType:
        return next(part for part in get_args(annotation) if part is not types.NoneType)
    return annotation


def _remove(document: dict[str, Any], path: Path) -> None:
    """Take the nearest mapping entry at or above `path` out of the document; a list with a fault goes whole."""
    keys = list(path)
    while keys and isinstance(keys[-1], int):
        keys.pop()
    holder: Any = document
    for key in keys[:-1]:
        holder = holder.get(key) if isinstance(holder, dict) else None
    if isinstance(holder, dict):
        holder.pop(keys[-1], None)
    elif keys:
        _remove(document, tuple(keys[:-1]))


def _missing(raw: Raw, path: Path) -> Iterator[tuple[Path, FieldInfo]]:
    """Every required key without a value, all the way down."""
    for name, info in type(raw).model_fields.items():
        value, here = getattr(raw, name), (*path, name)
        extra = info.json_schema_extra
        if value is None and isinstance(extra, dict) and extra["required"]:
            yield here, info
        nested = value.items() if isinstance(value, dict) else [(None, value)]
        for key, item in nested:
            if isinstance(item, Raw):
                yield from _missing(item, here if key is None else (*here, key))
