"""Selectors: which devices, in one small language for API, CLI and page.

    class = cam and tag in (lab, hall) and not model.digits >= 4 and seen < 2h

What can be asked stands in ``schemas.selector_fields``, the language in docs/rollouts.md.
Unknown never matches a comparison, whichever: a device that never told its memory is neither in
``ram_mb < 512`` nor in ``ram_mb >= 512``. So ``not`` of a comparison with the unknown is true.
``= none`` asks for the unknown itself.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, StringConstraints

from schemas.base import PlainText
from schemas.device import Presence
from schemas.selector_fields import Kind, parts_of
from schemas.selector_nodes import (
    MAX_SELECTOR,
    And,
    Everything,
    Node,
    Not,
    Op,
    Or,
    SelectorError,
    Term,
)
from schemas.selector_parser import parse, write

__all__ = [
    "MAX_SELECTOR",
    "And",
    "Everything",
    "Facts",
    "Node",
    "Not",
    "Op",
    "Or",
    "SelectorError",
    "SelectorText",
    "Term",
    "matches",
    "parse",
    "refusing",
    "write",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a device; None where it never said.

    last_seen, enrolled: seconds ago. certificate: seconds until it expires, negative once it has.
    models: the version of each that it serves.
    """

    id: str
    device_class: str
    tags: Collection[str] = ()
    presence: Presence = Presence.NEVER
    arch: str | None = None
    isa: Collection[str] | None = None
    providers: Collection[str] | None = None
    board: str | None = None
    cpus: int | None = None
    ram_mb: int | None = None
    ort: str | None = None
    agent: str | None = None
    models: Mapping[str, int] = field(default_factory=dict)
    last_seen: float | None = None
    enrolled: float = 0.0
    certificate: float | None = None


_READ: dict[str, Callable[[Facts], Any]] = {
    "id": lambda facts: facts.id,
    "class": lambda facts: facts.device_class,
    "presence": lambda facts: facts.presence.value.lower(),
    "arch": lambda facts: facts.arch,
    "board": lambda facts: facts.board,
    "cpus": lambda facts: facts.cpus,
    "ram_mb": lambda facts: facts.ram_mb,
    "ort": lambda facts: parts_of(facts.ort),
    "agent": lambda facts: parts_of(facts.agent),
    "seen": lambda facts: facts.last_seen,
    "enrolled": lambda facts: facts.enrolled,
    "certificate": lambda facts: facts.certificate,
}
_SEVERAL: dict[str, Callable[[Facts], Collection[str] | None]] = {
    "tag": lambda facts: facts.tags,
    "isa": lambda facts: facts.isa,
    "provider": lambda facts: facts.providers,
}
_ORDER: dict[Op, Callable[[Any, Any], bool]] = {
    Op.LT: operator.lt,
    Op.LE: operator.le,
    Op.GT: operator.gt,
    Op.GE: operator.ge,
}


def matches(node: Node, facts: Facts) -> bool:
    """Whether a device is meant."""
    match node:
        case Everything():
            return True
        case Not(inner):
            return not matches(inner, facts)
        case And(nodes):
            return all(matches(one, facts) for one in nodes)
        case Or(nodes):
            return any(matches(one, facts) for one in nodes)
        case Term():
            return _holds(node, facts)


def refusing(node: Node, facts: Facts) -> Node | None:
    """The smallest part of a selector for which a device is not meant; None if it is."""
    if matches(node, facts):
        return None
    if isinstance(node, And):
        return next(part for part in (refusing(one, facts) for one in node.nodes) if part)
    return node


def _holds(term: Term, facts: Facts) -> bool:
    known = _known(term, facts)
    if not term.values:
        return (not known) is (term.op is Op.EQ)
    if known is None:
        return False
    if term.op is Op.EQ:
        return any(value in known for value in term.values)
    if term.op is Op.NE:
        return all(value not in known for value in term.values)
    return any(_ORDER[term.op](one, term.values[0]) for one in known)


def _known(term: Term, facts: Facts) -> Collection[Any] | None:
    if term.field.kind is Kind.SEVERAL:
        return _SEVERAL[term.field.name](facts)
    value = facts.models.get(term.model) if term.model else _READ[term.field.name](facts)
    return None if value is None else (value,)


def _checked(text: str) -> str:
    parse(text)
    return text


SelectorText = Annotated[
    PlainText,
    StringConstraints(min_length=1, max_length=MAX_SELECTOR),
    AfterValidator(_checked),
]
"""A selector as a person wrote it."""
