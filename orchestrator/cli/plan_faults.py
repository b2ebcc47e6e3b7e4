"""What is wrong in a rollout's plan, for a person: the option or the line, and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from orchestrator.cli.authored import NAMES, plain, shown
from orchestrator.cli.failures import Located
from orchestrator.cli.plan_words import options
from orchestrator.cli.yamlfile import Place
from schemas.rollout import RolloutSpec

MAX_FAULTS = 10
_ALIKE = 0.75
"""Of 1: how much a key has to be like another to be taken for it."""

_NUMBERS = {
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "model_type": "must be a mapping",
    "tuple_type": "must be a list",
}
_SPANS = frozenset({"float_parsing", "float_type"})
_SECONDS = "it is in seconds; the names of the options take units, as in soak: 10m"


class Stand(NamedTuple):
    """Where a value of a plan stands: its line in the file, or 0 where ``told`` says what it is."""

    line: int
    told: str


def faults(error: ValidationError, where: Callable[[Place], Stand]) -> Located:
    """Every fault of a plan: those of options, then those of the file in the order of lines.

    Args:
        error: from ``RolloutSpec``.
        where: finds a place.
    """
    found = sorted(error.errors(include_url=False), key=lambda one: where(one["loc"]).line)
    told = [_fault(where(one["loc"]), dict(one)) for one in found]
    return Located(list(dict.fromkeys(told))[:MAX_FAULTS])


def misread(wanted: Any, read: Any) -> Place | None:
    """The first place where true or false was read as a number, as 1 or 0; None without one.

    Args:
        wanted: what was asked for, in plain values.
        read: the plan, or what of it was made from them.
    """
    if isinstance(wanted, bool):
        return None if isinstance(read, bool) else ()
    parts: Iterable[tuple[str | int, Any, Any]] = ()
    if isinstance(wanted, dict):
        parts = ((key, value, getattr(read, key, None)) for key, value in wanted.items())
    elif isinstance(wanted, list | tuple) and isinstance(read, list | tuple):
        parts = ((i, *pair) for i, pair in enumerate(zip(wanted, read, strict=False)))
    for key, one, its in parts:
        if (place := misread(one, its)) is not None:
            return (key, *place)
    return None


def no_number(place: Place, where: Callable[[Place], Stand]) -> Located:
    """That a place holds true or false, and wants a number."""
    return Located([_fault(where(place), {"type": "float_type", "loc": place})])


def _fault(stand: Stand, error: Mapping[str, Any]) -> tuple[str, str | None]:
    place: Place = tuple(error["loc"])
    kind, name, where = error["type"], ".".join(map(str, place)), stand.told
    label = f"{where}: {name}" if stand.line and name else where
    if kind == "extra_forbidden":
        return f"{where}: there is no key {name!r}", _keys(place)
    if kind == "missing":
        return f"{where}: the key {name!r} is missing", None
    said = _NUMBERS.get(kind) or plain(error)
    given = error.get("input")
    repeated = f" (it is {shown(given)})" if isinstance(given, str | int | float) else ""
    is_name = kind == "string_pattern_mismatch" and "a-z0-9" in str(error.get("ctx"))
    hint = NAMES if is_name else _SECONDS if kind in _SPANS and name.endswith("_seconds") else None
    return f"{label}: {said}{repeated}", hint


def _keys(place: Place) -> str | None:
    """The keys that are allowed there, and which one may have been meant."""
    model = _model_at(place[:-1])
    if model is None:
        return None
    fields = list(model.model_fields)
    allowed = f"allowed here: {', '.join(fields)}"
    if len(place) == 1:
        names = ", ".join(["model", "version", *(one.replace("_", "-") for one in options())])
        allowed = f"allowed here: {names}; and what `argosy rollout get -o yaml` shows under spec"
    meant = _meant(str(place[-1]), place[:-1], fields)
    return f"did you mean {meant!r}? {allowed}" if meant else allowed


def _meant(key: str, around: Place, fields: list[str]) -> str | None:
    """The key that is likest: there, the same one elsewhere, or an option's name."""
    inside = [".".join(map(str, one)) for one in _places() if len(one) > 1 and one[-1] == key]
    if inside:
        return inside[0]
    if around and key in options():
        return next((one for one in fields if one.startswith(f"{key}_")), f"{key} at the top")
    words = [*fields, *(() if around else options())]
    return next(iter(difflib.get_close_matches(key, words, n=1, cutoff=_ALIKE)), None)


def _places(model: type[BaseModel] = RolloutSpec, around: tuple[str, ...] = ()) -> list[Place]:
    """Every key of a plan that is in no list."""
    found: list[Place] = []
    for name, field in model.model_fields.items():
        inner = None if "tuple" in str(field.annotation) else _model_in(field.annotation)
        found.append((*around, name))
        found += _places(inner, (*around, name)) if inner else []
    return found


def _model_at(place: Place) -> type[BaseModel] | None:
    model: type[BaseModel] | None = RolloutSpec
    for part in place:
        if isinstance(part, int):
            continue
        field = None if model is None else model.model_fields.get(part)
        model = None if field is None else _model_in(field.annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(one) for one in get_args(annotation))
    return next((model for model in found if model is not None), None)
