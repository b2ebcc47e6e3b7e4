"""Plain values that a person wrote freely: what JSON, a database and every peer can hold."""

from __future__ import annotations

import json
import math
from typing import Any

from schemas.base import storable

MAX_DEPTH = 32
MAX_WHOLE = 2**63 - 1


def check_plain(value: Any, max_bytes: int) -> None:
    """See that a value survives being sent, stored and read again as it is.

    Args:
        value: mappings with text as keys, lists, text, numbers, true, false and null.
        max_bytes: the most that it may have as JSON.

    Raises:
        ValueError: it is deeper than ``MAX_DEPTH``, larger, or holds something else:
            half a surrogate pair, NUL, a number that is not finite or passes 64 bits.
    """
    _check(value, "", 0)
    if len(json.dumps(value)) > max_bytes:
        msg = f"has more than {max_bytes} bytes; put data into files"
        raise ValueError(msg)


def _check(value: Any, place: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        msg = f"has more than {MAX_DEPTH} levels"
        raise ValueError(msg)
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                msg = f"has the key {key!r}, which is no text; put quotes around it"
                raise ValueError(msg)  # noqa: TRY004 - pydantic knows ValueError alone
            _leaf(key, place)
            _check(inner, f"{place}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check(inner, f"{place}.{index}", depth + 1)
    else:
        _leaf(value, place)


def _leaf(value: Any, place: str) -> None:
    where = f" (at {place[1:80]})" if place else ""
    if isinstance(value, str):
        try:
            storable(value)
        except ValueError as error:
            msg = f"{error}{where}"
            raise ValueError(msg) from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            msg = f"has a number that is not finite{where}"
            raise ValueError(msg)
    elif isinstance(value, int) and abs(value) > MAX_WHOLE:
        msg = f"has a whole number beyond 64 bits{where}"
        raise ValueError(msg)
    elif not isinstance(value, int | None):
        msg = f"has a value of type {type(value).__name__}{where}; give text or a number"
        raise ValueError(msg)
