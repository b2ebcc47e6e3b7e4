"""What a selector is once it was read: a tree."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from schemas.selector_fields import Field, Value

MAX_SELECTOR = 2000
MAX_DEPTH = 20
MAX_TERMS = 64
MAX_VALUES = 128
"""Of one ``in (…)``."""


class SelectorError(ValueError):
    """What is no selector. position: of the character where reading stopped, from 1."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(f"at {position}: {message}")
        self.position = position


class Op(StrEnum):
    """A comparison."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="


@dataclass(frozen=True, slots=True)
class Everything:
    """``*``."""


@dataclass(frozen=True, slots=True)
class Term:
    """A field compared with a value.

    values: several mean ``in`` (EQ: any of them) or ``not in`` (NE: none of them); no value at
    all stands for ``none``. model: of ``model.NAME``.
    """

    field: Field
    op: Op
    values: tuple[Value, ...]
    model: str = ""


@dataclass(frozen=True, slots=True)
class Not:
    """What does not match another."""

    node: Node


@dataclass(frozen=True, slots=True)
class And:
    """What matches all of several."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """What matches one of several."""

    nodes: tuple[Node, ...]


Node = Everything | Term | Not | And | Or
