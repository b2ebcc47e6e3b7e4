"""Job files: YAML in, ``JobSpec`` out, or every fault with its line and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from orchestrator.cli.authored import plain
from orchestrator.cli.failures import Located
from orchestrator.cli.yamlfile import Document, Place, load
from schemas.jobfile import JobSpec

MAX_FAULTS = 10

_NUMBERS = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
}

_HINTS: dict[tuple[str, ...], str] = {
    ("name",): "lower-case letters, digits and hyphens, at most 63, as in DNS: `name: digits`",
    ("model",): "lower-case letters, digits and hyphens, at most 63, as in DNS: `model: digits`",
    ("task",): "the import path of a task class, as in `task: package.module:Class`",
}


def load_job(path: Path) -> JobSpec:
    """Read a job file.

    Raises:
        Invalid: it cannot be read as YAML.
        Located: it is YAML and not a job; all its faults at once.
    """
    document = load(path)
    try:
        return JobSpec.model_validate(document.value)
    except ValidationError as error:
        found = sorted(error.errors(include_url=False), key=lambda one: document.line(one["loc"]))
        raise Located([_fault(document, dict(one)) for one in found[:MAX_FAULTS]]) from None


def _fault(document: Document, error: Mapping[str, Any]) -> tuple[str, str | None]:
    place: Place = tuple(error["loc"])
    where, name = document.where(place), ".".join(map(str, place))
    kind = error["type"]
    if kind == "extra_forbidden":
        return f"{where}: there is no key {name!r}", _keys_hint(place)
    if kind == "missing":
        return f"{where}: the key {name!r} is missing", _hint_of(place)
    if not place:
        return f"{where}: {plain(error)}", None
    given = error.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | None) else ""
    if kind == "string_pattern_mismatch":
        return f"{where}: {name} cannot be {given!r}", _hint_of(place)
    if kind in {"model_type", "dict_type"}:
        keys = ", ".join(_fields_at(place))
        return (
            f"{where}: {name} must be a mapping{shown[:120]}",
            f"its keys: {keys}" if keys else None,
        )
    if kind in _NUMBERS:
        return f"{where}: {name} must be {_NUMBERS[kind]}{shown[:120]}", _hint_of(place)
    return f"{where}: {name} {plain(error)}{shown[:120]}", _hint_of(place)


def _hint_of(place: Place) -> str | None:
    return _HINTS.get(tuple(str(part) for part in place))


def _keys_hint(place: Place) -> str | None:
    fields = _fields_at(place[:-1])
    wrong = str(place[-1])
    elsewhere = next(
        (
            f"{name}.{wrong}"
            for name, field in JobSpec.model_fields.items()
            if wrong in _fields_of(field.annotation)
        ),
        None,
    )
    close = next(iter(difflib.get_close_matches(wrong, fields, n=1)), None)
    guess = elsewhere or close
    allowed = f"allowed here: {', '.join(fields)}"
    return f"did you mean {guess!r}? {allowed}" if guess else allowed


def _fields_at(place: Place) -> list[str]:
    model: type[BaseModel] = JobSpec
    for part in place:
        field = model.model_fields.get(str(part))
        inner = None if field is None else _model_of(field.annotation)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _fields_of(annotation: Any) -> list[str]:
    model = _model_of(annotation)
    return [] if model is None else list(model.model_fields)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    options = [annotation, *get_args(annotation)]
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
