"""Building what a person asked for from options, and naming the option that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.errors import Invalid

T = TypeVar("T", bound=BaseModel)


def plain(error: Mapping[str, Any]) -> str:
    """What pydantic found wrong, without its prefixes."""
    if error["type"] == "string_pattern_mismatch":
        return "this form is not allowed"
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if str(error["msg"]).startswith("Input should be "):
        text = f"must be {text}"
    return text


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
        given = f" (it is {first['input']!r})" if isinstance(first["input"], str | int) else ""
        detail = f"{field}: {plain(first)}{given}" if field else plain(first)
        raise Invalid(detail, hint=_hint(first["type"], first.get("ctx", {}))) from None


def _hint(kind: str, context: Mapping[str, Any]) -> str | None:
    if kind == "string_pattern_mismatch" and "a-z0-9" in str(context.get("pattern")):
        return "names are lower-case letters, digits and hyphens, at most 63, as in DNS"
    return None
