"""What a selector may ask of a device: the fields, and how their values are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from schemas.device import Presence

_NAME = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LONGEST_DAYS = 10_000
_PARTS = 6
"""Of a dotted version: so many numbers are looked at."""
_DIGITS = 9


class Kind(Enum):
    """How values of a field are written and compared."""

    TEXT = "text"
    SEVERAL = "several"
    NUMBER = "number"
    VERSION = "version"
    SPAN = "span"


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that can be asked of a device.

    pattern: what its values look like; form: the same in words; choices: all of them, where they
    are few. known: every device has it, so ``none`` makes no sense.
    """

    name: str
    kind: Kind
    form: str
    pattern: re.Pattern[str]
    known: bool = False
    choices: tuple[str, ...] = ()

    @property
    def ordered(self) -> bool:
        """Whether < and > mean something."""
        return self.kind in {Kind.NUMBER, Kind.VERSION, Kind.SPAN}


def _field(name: str, kind: Kind, form: str, pattern: str, *, known: bool = False) -> Field:
    # ASCII: digits of other scripts are digits to int(), and to no database.
    return Field(name, kind, form, re.compile(pattern, re.ASCII), known)


def _choice(name: str, choices: tuple[str, ...]) -> Field:
    pattern = re.compile("|".join(choices))
    return Field(
        name, Kind.TEXT, "one of " + ", ".join(choices), pattern, known=True, choices=choices
    )


_NUMBER = r"\d{1,15}"
_DOTTED = rf"\d{{1,{_DIGITS}}}(?:\.\d{{1,{_DIGITS}}}){{0,{_PARTS - 1}}}"
_SPAN = r"\d{1,9}[smhdw]"

_ALL = (
    _field("id", Kind.TEXT, "a device's id", "dev_[0-9a-hjkmnp-tv-z]{16}", known=True),
    _field("class", Kind.TEXT, "a class, as cam", _NAME, known=True),
    _field("tag", Kind.SEVERAL, "a tag, as lab", r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"),
    _choice("presence", tuple(one.value.lower() for one in Presence)),
    _field("arch", Kind.TEXT, "an architecture, as aarch64", r".{1,32}"),
    _field("isa", Kind.SEVERAL, "an instruction set, as avx2", r"[a-z0-9_]{1,32}"),
    _field("provider", Kind.SEVERAL, "an execution provider, as CPUExecutionProvider", r".{1,100}"),
    _field("board", Kind.TEXT, "a board's name, in quotes", r".{1,100}"),
    _field("cpus", Kind.NUMBER, "a whole number", _NUMBER),
    _field("ram_mb", Kind.NUMBER, "a whole number of MiB", _NUMBER),
    _field("ort", Kind.VERSION, "a dotted version, as 1.20", _DOTTED),
    _field("agent", Kind.VERSION, "a dotted version, as 0.2", _DOTTED),
    _field("seen", Kind.SPAN, "a span of time, as 30s, 5m, 2h, 7d or 1w", _SPAN),
    _field("enrolled", Kind.SPAN, "a span of time, as 30s, 5m, 2h, 7d or 1w", _SPAN, known=True),
    _field("certificate", Kind.SPAN, "a span of time, as 30s, 5m, 2h, 7d or 1w", _SPAN),
)
FIELDS = {one.name: one for one in _ALL}
MODEL = _field("model", Kind.NUMBER, "the number of a version", _NUMBER)
"""``model.NAME``: the version of a model that a device serves."""

_MODEL = re.compile(rf"model\.({_NAME})")

Value = str | int | tuple[int, ...]
"""Text; a number, or seconds; the parts of a dotted version."""


def field_of(word: str) -> tuple[Field, str] | None:
    """The field that a word names, with the model's name of ``model.NAME``."""
    model = _MODEL.fullmatch(word)
    if model is not None:
        return MODEL, model[1]
    return (FIELDS[word], "") if word in FIELDS else None


def value_of(field: Field, text: str) -> Value:
    """A value as it is written.

    Raises:
        ValueError: it is none of that field's.
    """
    if field.pattern.fullmatch(text) is None:
        msg = field.form
        raise ValueError(msg)
    if field.kind is Kind.NUMBER:
        return int(text)
    if field.kind is Kind.VERSION:
        return parts_of(text) or ()
    if field.kind is Kind.SPAN:
        seconds = int(text[:-1]) * _SECONDS[text[-1]]
        if seconds > _LONGEST_DAYS * _SECONDS["d"]:
            msg = f"at most {_LONGEST_DAYS}d"
            raise ValueError(msg)
        return seconds
    return text


_LEADING = re.compile(rf"{_DOTTED}(?!\d)", re.ASCII)


def parts_of(version: str | None) -> tuple[int, ...] | None:
    """The numbers that a dotted version begins with, as they are compared: 1.20 is 1.20.0.

    None where it begins with none, or its first ones are longer than any version's.
    """
    found = None if version is None else _LEADING.match(version)
    if found is None:
        return None
    parts = [int(one) for one in found[0].split(".")]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def version_key(version: str | None) -> str | None:
    """A dotted version as text that sorts as it does; None where ``parts_of`` finds none."""
    parts = parts_of(version)
    return None if parts is None else key_of(parts)


def key_of(parts: tuple[int, ...]) -> str:
    """The numbers of a version as text that sorts as they do: each with all its digits."""
    return "".join(f"{one:0{_DIGITS}d}" for one in parts)
