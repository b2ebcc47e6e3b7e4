"""Keeping secrets and sizes out of what is kept for long: text from elsewhere, made safe."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar, cast

from pydantic import BaseModel

T = TypeVar("T")

MASK = "[secret]"
MAX_TEXT = 500
MAX_ITEMS = 50
MAX_DEPTH = 4

_TOKENS = re.compile(
    r"arg_(key_[0-9a-z]{16})_[A-Za-z0-9_-]{43}"
    r"|aj1\.(tok_[0-9a-z]{16})\.[A-Za-z0-9_.-]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)
_NAMES = re.compile(r"(?:^|_)(?:secret|token|password|passphrase|private_key|cookie)$")
_ID = re.compile(r"[a-z]{3,5}_[0-9a-z]{16}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def masked(value: T) -> T:
    """A plain value without secrets, and of a bounded size.

    API tokens, join tokens and private keys are masked wherever they stand in a text, and
    whatever a mapping has under the name of a secret. Long texts and lists are cut, deep ones
    become text, and what is not JSON becomes text: so each value reads back as it was written.
    """
    return cast("T", _plain(value, 0))


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        pairs = list(value.items())[:MAX_ITEMS]
        return {_text(str(key)): _named(str(key), item, depth) for key, item in pairs}
    if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_plain(item, depth + 1) for item in list(items)[:MAX_ITEMS]]
    return value if _is_figure(value) else _text(_shown(value))


def _is_figure(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and abs(value) < 2**63)


def _shown(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _named(name: str, item: Any, depth: int) -> Any:
    if item is not None and _NAMES.search(name.lower()) and not _ID.fullmatch(str(item)):
        return MASK
    return _plain(item, depth + 1)


def _text(text: str) -> str:
    found = _TOKENS.sub(lambda match: match[1] or match[2] or MASK, text[: 10 * MAX_TEXT])
    plain = _UNSTORABLE.sub("", found)
    return plain if len(plain) <= MAX_TEXT else plain[: MAX_TEXT - 1] + "…"
