"""Reads selectors, by recursive descent, and writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import NoReturn

from schemas.selector_fields import FIELDS, Field, Kind, Value, field_of, value_of
from schemas.selector_nodes import (
    MAX_DEPTH,
    MAX_SELECTOR,
    MAX_TERMS,
    MAX_VALUES,
    And,
    Everything,
    Node,
    Not,
    Op,
    Or,
    SelectorError,
    Term,
)

_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>!=|<=|>=|==|[=<>(),!])|(?P<quote>"[^"]*"|'[^']*')|(?P<word>[^\s()=<>!,"']+))"""
)
_KEYWORDS = ("and", "or", "not", "in")
_OPS = frozenset(op.value for op in Op)
_NONE = "none"


@dataclass(frozen=True, slots=True)
class _Token:
    """A piece of the text; kind: mark, quote, word or end. at: its first character, from 1."""

    kind: str
    text: str
    at: int


@lru_cache(maxsize=256)
def parse(text: str) -> Node:
    """Read a selector.

    Raises:
        SelectorError: it is none; the message says where, what stands there, and what could.
    """
    if len(text) > MAX_SELECTOR:
        raise SelectorError(MAX_SELECTOR + 1, f"a selector has at most {MAX_SELECTOR} characters")
    reader = _Reader(_tokens(text))
    node = reader.either(0)
    reader.end()
    return node


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:  # all else is part of a word, or stands for itself
            at += len(text[at:]) - len(text[at:].lstrip())
            raise SelectorError(at + 1, f"the quote {text[at]} has no end")
        kind = str(found.lastgroup)
        tokens.append(_Token(kind, found[kind], found.start(kind) + 1))
        at = found.end()
    return [*tokens, _Token("end", "", len(text) + 1)]


class _Reader:
    """What is left to read of one selector."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._terms = 0

    def either(self, depth: int) -> Node:
        nodes = [self._both(depth)]
        while self._take("or"):
            nodes.append(self._both(depth))
        return nodes[0] if len(nodes) == 1 else Or(tuple(nodes))

    def _both(self, depth: int) -> Node:
        nodes = [self._one(depth)]
        while self._take("and"):
            nodes.append(self._one(depth))
        return nodes[0] if len(nodes) == 1 else And(tuple(nodes))

    def _one(self, depth: int) -> Node:
        here = self._here
        if depth > MAX_DEPTH:
            raise SelectorError(here.at, f"more than {MAX_DEPTH} levels of not and parentheses")
        if self._take("not"):
            return Not(self._one(depth + 1))
        if self._take("(", "mark"):
            node = self.either(depth + 1)
            if not self._take(")", "mark"):
                self._refuse("and, or, or )", ("and", "or"))
            return node
        if self._take("*"):
            return Everything()
        return self._term()

    def _term(self) -> Term:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise SelectorError(self._here.at, f"more than {MAX_TERMS} comparisons")
        known = field_of(self._here.text) if self._here.kind == "word" else None
        if known is None:
            self._no_field()
        self._next += 1
        field, model = known
        if self._take("in"):
            return Term(field, Op.EQ, self._list(field), model)
        if self._take("not"):
            if not self._take("in"):
                self._refuse("in", ("in",))
            return Term(field, Op.NE, self._list(field), model)
        op = self._op(field)
        return Term(field, op, self._value_or_none(field, op), model)

    def _op(self, field: Field) -> Op:
        here = self._here
        allowed = list(Op) if field.ordered else [Op.EQ, Op.NE]
        if here.kind != "mark" or here.text not in _OPS:
            hint = "; equality is written with one =" if here.text == "==" else ""
            self._refuse(f"one of {' '.join(allowed)} in", ("in",), hint)
        if here.text not in allowed:
            message = f"{field.name} has no order: it takes =, !=, in and not in"
            raise SelectorError(here.at, message)
        self._next += 1
        return Op(here.text)

    def _value_or_none(self, field: Field, op: Op) -> tuple[Value, ...]:
        here = self._here
        if (here.kind, here.text) != ("word", _NONE):
            if field.kind is Kind.SPAN and op in {Op.EQ, Op.NE}:
                raise SelectorError(here.at, f"{field.name} is compared with < <= > >=")
            return (self._value(field),)
        if field.known:
            raise SelectorError(here.at, f"every device has {_article(field)}: none never fits")
        if op not in {Op.EQ, Op.NE}:
            raise SelectorError(here.at, "none goes with = and != alone")
        self._next += 1
        return ()

    def _list(self, field: Field) -> tuple[Value, ...]:
        if field.kind is Kind.SPAN:
            raise SelectorError(self._here.at, f"{field.name} is compared with < <= > >=")
        if not self._take("(", "mark"):
            self._refuse("( and values between commas")
        values = [self._value(field)]
        while self._take(",", "mark"):
            if len(values) == MAX_VALUES:
                raise SelectorError(self._here.at, f"more than {MAX_VALUES} values")
            values.append(self._value(field))
        if not self._take(")", "mark"):
            self._refuse(", or )")
        return tuple(values)

    def _value(self, field: Field) -> Value:
        here = self._here
        if here.kind not in {"word", "quote"}:
            self._refuse(field.form)
        if (here.kind, here.text) == ("word", _NONE):
            raise SelectorError(here.at, f"none stands alone, as in {field.name} = none")
        text = here.text[1:-1] if here.kind == "quote" else here.text
        try:
            value = value_of(field, text)
        except ValueError as error:
            self._refuse(str(error), field.choices)
        self._next += 1
        return value

    def end(self) -> None:
        if self._here.kind != "end":
            self._refuse("and, or, or the end", ("and", "or"))

    @property
    def _here(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, text: str, kind: str = "word") -> bool:
        taken = (self._here.kind, self._here.text) == (kind, text)
        self._next += taken
        return taken

    def _no_field(self) -> NoReturn:
        here = self._here
        if here.kind == "word" and here.text.partition(".")[0] == "model":
            self._refuse("model.NAME, as model.digits")
        self._refuse("a field, not, ( or *", (*FIELDS, *_KEYWORDS))

    def _refuse(self, wanted: str, near: tuple[str, ...] = (), hint: str = "") -> NoReturn:
        here = self._here
        found = "the end" if here.kind == "end" else repr(here.text[:40])
        close = get_close_matches(here.text.lower()[:40], near, 1, 0.6)
        if close and here.kind == "word":
            hint = f"; did you mean {close[0]}?"
        elif wanted.startswith("a field") and here.kind == "word":
            hint = f"; fields are {', '.join(FIELDS)} and model.NAME"
        raise SelectorError(here.at, f"found {found} where {wanted} was expected{hint}")


def _article(field: Field) -> str:
    return f"an {field.name}" if field.name[0] in "aeio" else f"a {field.name}"


def write(node: Node) -> str:
    """The text of a selector; ``parse`` makes the same tree of it."""
    match node:
        case Everything():
            return "*"
        case Not(inner):
            return f"not {_inside(inner)}"
        case And(nodes):
            return " and ".join(_inside(one) for one in nodes)
        case Or(nodes):
            return " or ".join(_inside(one) for one in nodes)
        case Term(field, op, values, model):
            name = f"{field.name}.{model}" if model else field.name
            if len(values) > 1:
                several = ", ".join(_written(field, one) for one in values)
                return f"{name} {'in' if op is Op.EQ else 'not in'} ({several})"
            return f"{name} {op} {_written(field, values[0]) if values else _NONE}"


def _inside(node: Node) -> str:
    return f"({write(node)})" if isinstance(node, And | Or) else write(node)


def _written(field: Field, value: Value) -> str:
    if isinstance(value, tuple):
        return ".".join(str(one) for one in value)
    if isinstance(value, int):
        return f"{value}s" if field.kind is Kind.SPAN else str(value)
    if _TOKEN.fullmatch(value) and value != _NONE and value[0] not in "\"'":
        return value
    return f"'{value}'" if '"' in value else f'"{value}"'
