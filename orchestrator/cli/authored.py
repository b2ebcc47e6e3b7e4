"""Building what a person asked for from options, and naming the option that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.errors import Invalid

T = TypeVar("T", bound=BaseModel)

NAMES = "names are lower-case letters, digits and hyphens, at most 63, as in DNS"
_SHOWN = 80
"""Characters of what was given that a message repeats."""
_LENGTHS = frozenset({"string_too_long", "string_too_short", "too_long", "too_short"})


def plain(error: Mapping[str, Any]) -> str:
    """What pydantic found wrong, without its prefixes."""
    kind = str(error["type"])
    if kind == "string_pattern_mismatch":
        return "this form is not allowed"
    if kind in _LENGTHS:
        return _length(kind, error)
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if str(error["msg"]).startswith("Input should be "):
        text = f"must be {text}"
    return text


def shown(value: object) -> str:
    """What was given, as a message repeats it: in a line, however long it is."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…, {len(str(value))} characters"


def _length(kind: str, error: Mapping[str, Any]) -> str:
    context, given = error.get("ctx", {}), error.get("input")
    what = "characters" if isinstance(given, str) else "values"
    if kind.endswith("too_long"):
        return f"must have at most {context['max_length']} {what}"
    least = context["min_length"]
    return "must not be empty" if least == 1 else f"must have at least {least} {what}"


def build(kind: type[T], names: Mapping[str, str], **values: Any) -> T:
    """Make ``kind`` of ``values``.

    Args:
        kind: the type.
        names: the option that sets each field, for the message.
        values: the fields.

    Raises:
        Invalid: a value is not allowed; the message names its option.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
        field = names.get(path, names.get(path.partition(".")[0], path))
        input_ = first["input"]
        given = f" (it is {shown(input_)})" if isinstance(input_, str | int) else ""
        detail = f"{field}: {plain(first)}{given}" if field else plain(first)
        raise Invalid(detail, hint=_hint(first["type"], first.get("ctx", {}))) from None


def _hint(kind: str, context: Mapping[str, Any]) -> str | None:
    if kind == "string_pattern_mismatch" and "a-z0-9" in str(context.get("pattern")):
        return NAMES
    return None
