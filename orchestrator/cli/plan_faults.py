"""What is wrong in a rollout's plan, for a person: the option or the line, and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from orchestrator.cli.authored import plain
from orchestrator.cli.failures import Located
from orchestrator.cli.yamlfile import Place
from schemas.rollout import RolloutSpec

MAX_FAULTS = 10

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
_NAMES = "names are lower-case letters, digits and hyphens, at most 63, as in DNS"


def faults(error: ValidationError, where: Callable[[Place], tuple[int, str]]) -> Located:
    """Every fault of a plan, in the order of where they stand.

    Args:
        error: from ``RolloutSpec``.
        where: the line of a place, 0 of an option, and how it is said.
    """
    found = sorted(error.errors(include_url=False), key=lambda one: where(one["loc"])[0])
    told = [_fault(*where(one["loc"]), dict(one)) for one in found]
    return Located(list(dict.fromkeys(told))[:MAX_FAULTS])


def _fault(line: int, where: str, error: Mapping[str, Any]) -> tuple[str, str | None]:
    place: Place = tuple(error["loc"])
    kind, name = error["type"], ".".join(map(str, place))
    # An option says by itself which value it is.
    label = where if not line else f"{where}: {name}" if name else where
    if kind == "extra_forbidden":
        return f"{where}: there is no key {name!r}", _keys(place)
    if kind == "missing":
        return f"{where}: the key {name!r} is missing", None
    said = _NUMBERS.get(kind) or plain(error)
    given = error.get("input")
    shown = f" (it is {given!r})"[:120] if isinstance(given, str | int | float) else ""
    is_name = kind == "string_pattern_mismatch" and "a-z0-9" in str(error.get("ctx"))
    return f"{label}: {said}{shown}", _NAMES if is_name else None


def _keys(place: Place) -> str | None:
    """The keys that are allowed there, and which one may have been meant."""
    model = _model_at(place[:-1])
    if model is None:
        return None
    fields = list(model.model_fields)
    close = difflib.get_close_matches(str(place[-1]), fields, n=1)
    allowed = f"allowed here: {', '.join(fields)}"
    return f"did you mean {close[0]!r}? {allowed}" if close else allowed


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
