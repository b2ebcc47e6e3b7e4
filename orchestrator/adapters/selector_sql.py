"""Selectors in SQL: ``schemas.selector.matches``, by bound parameters only.

Every part is true or false, never NULL, so that ``not`` means here what it means there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Numeric,
    String,
    Text,
    and_,
    bindparam,
    case,
    exists,
    false,
    func,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from orchestrator.adapters.tables import DeviceModelRow, DeviceRow, DeviceTagRow
from schemas.selector_fields import Kind, key_of
from schemas.selector_nodes import And, Everything, Node, Not, Op, Or, Term

_COMPARE: dict[Op, Callable[[Any, Any], ColumnElement[bool]]] = {
    Op.LT: lambda column, value: column < value,
    Op.LE: lambda column, value: column <= value,
    Op.GT: lambda column, value: column > value,
    Op.GE: lambda column, value: column >= value,
}
_TURNED = {Op.LT: Op.GT, Op.LE: Op.GE, Op.GT: Op.LT, Op.GE: Op.LE}


class _Members(FunctionElement[str]):
    """The items of a list in ``devices.hardware``, as a table with the column ``value``."""

    inherit_cache = True
    type = String()


@compiles(_Members, "sqlite")
def _members_sqlite(element: _Members, compiler: Any, **kwargs: Any) -> str:
    hardware, name = element.clauses
    of, key = compiler.process(hardware, **kwargs), compiler.process(name, **kwargs)
    return f"json_each({of}, '$.' || {key})"


@compiles(_Members, "postgresql")
def _members_postgresql(element: _Members, compiler: Any, **kwargs: Any) -> str:
    hardware, name = element.clauses
    of, key = compiler.process(hardware, **kwargs), compiler.process(name, **kwargs)
    return f"json_array_elements_text({of} -> {key}::text)"


class _ListText(FunctionElement[str]):
    """A list in ``devices.hardware`` as JSON text."""

    inherit_cache = True
    type = String()


@compiles(_ListText, "sqlite")
def _list_sqlite(element: _ListText, compiler: Any, **kwargs: Any) -> str:
    hardware, name = element.clauses
    of, key = compiler.process(hardware, **kwargs), compiler.process(name, **kwargs)
    return f"json_extract({of}, '$.' || {key})"


@compiles(_ListText, "postgresql")
def _list_postgresql(element: _ListText, compiler: Any, **kwargs: Any) -> str:
    hardware, name = element.clauses
    of, key = compiler.process(hardware, **kwargs), compiler.process(name, **kwargs)
    return f"({of} -> {key}::text)::text"


class _Holds(FunctionElement[bool]):
    """Whether a text holds another, to the letter."""

    inherit_cache = True
    type = Boolean()


@compiles(_Holds, "sqlite")
def _holds_sqlite(element: _Holds, compiler: Any, **kwargs: Any) -> str:
    return f"(instr({compiler.process(element.clauses, **kwargs)}) > 0)"


@compiles(_Holds, "postgresql")
def _holds_postgresql(element: _Holds, compiler: Any, **kwargs: Any) -> str:
    return f"(strpos({compiler.process(element.clauses, **kwargs)}) > 0)"


def where(node: Node, now: datetime) -> ColumnElement[bool]:
    """Which rows of ``devices`` a selector means at a time."""
    match node:
        case Everything():
            return true()
        case Not(inner):
            return not_(where(inner, now))
        case And(nodes):
            return and_(*(where(one, now) for one in nodes))
        case Or(nodes):
            return or_(*(where(one, now) for one in nodes))
        case Term():
            return _term(node, now)


def _term(term: Term, now: datetime) -> ColumnElement[bool]:
    name = term.field.name
    if term.model:
        return _model(term)
    if name == "tag":
        return _tag(term)
    if term.field.kind is Kind.SEVERAL:
        return _member(term, "providers" if name == "provider" else name)
    if term.field.kind is Kind.SPAN:
        return _span(term, now)
    return _scalar(term, *_column(name))


def _hardware(name: str) -> ColumnElement[str]:
    return cast("ColumnElement[str]", DeviceRow.hardware[name].as_string())


def _column(name: str) -> tuple[ColumnElement[Any], bool]:
    """What a field is compared by, and whether it may be NULL."""
    match name:
        case "id":
            return DeviceRow.id.expression, False
        case "class":
            return DeviceRow.device_class.expression, False
        case "presence":
            return DeviceRow.presence.expression, False
        case "ort":
            return DeviceRow.ort_key.expression, True
        case "agent":
            return DeviceRow.agent_key.expression, True
        case "cpus" | "ram_mb":
            # A device may claim more than any integer column holds.
            return sql_cast(_hardware(name), Numeric()), True
        case _:
            return _hardware(name), True


def _values(term: Term) -> list[Any]:
    if term.field.kind is Kind.VERSION:
        return [key_of(value) for value in term.values if isinstance(value, tuple)]
    if term.field.name == "presence":
        return [str(value).upper() for value in term.values]
    return list(term.values)


def _scalar(term: Term, column: ColumnElement[Any], nullable: bool) -> ColumnElement[bool]:  # noqa: FBT001 - a fact of the column
    values = _values(term)
    if not values:
        return column.is_(None) if term.op is Op.EQ else column.is_not(None)
    if term.op is Op.EQ:
        found = column.in_(values) if len(values) > 1 else column == values[0]
    elif term.op is Op.NE:
        found = column.not_in(values) if len(values) > 1 else column != values[0]
    else:
        found = _COMPARE[term.op](column, values[0])
    return and_(column.is_not(None), found) if nullable else found


def _model(term: Term) -> ColumnElement[bool]:
    its = select(DeviceModelRow.device_id).where(DeviceModelRow.model == term.model)
    if term.values:
        its = its.where(_scalar(term, DeviceModelRow.version.expression, nullable=False))
    none = not term.values and term.op is Op.EQ
    return DeviceRow.id.not_in(its) if none else DeviceRow.id.in_(its)


def _tag(term: Term) -> ColumnElement[bool]:
    its = select(DeviceTagRow.device_id)
    if term.values:
        its = its.where(DeviceTagRow.tag.in_(list(term.values)))
    # ``tag = none`` asks for no tag at all; ``tag != x`` for none of these.
    has = (term.op is Op.EQ) is bool(term.values)
    return DeviceRow.id.in_(its) if has else DeviceRow.id.not_in(its)


def _member(term: Term, name: str) -> ColumnElement[bool]:
    if not term.values:
        some = _listed(name)
        return not_(some) if term.op is Op.EQ else some
    some = _quickly([str(value) for value in term.values], name)
    return some if term.op is Op.EQ else and_(_hardware("arch").is_not(None), not_(some))


def _listed(name: str, values: Sequence[str] = ()) -> ColumnElement[bool]:
    """That a list has any of these items, or any at all."""
    items = _Members(DeviceRow.hardware, bindparam(None, name)).table_valued("value")
    of = select(items.c.value)
    if values:
        of = of.where(items.c.value.in_(list(values)))
    return exists(of.correlate(DeviceRow))


def _quickly(values: Sequence[str], name: str) -> ColumnElement[bool]:
    """Likewise, by searching text first: to open the list of every device takes many times as long.

    JSON has a printable ASCII item between quotes as it is, but for quotes and backslashes. So
    whose record lacks that has no such item; and where the list has no backslash, no
    quote in it is part of an item, and to find it there is enough.
    """
    odd = [v for v in values if not (v.isascii() and v.isprintable()) or set(v) & {'"', "\\"}]
    if odd:
        return _listed(name, values)
    text = sql_cast(DeviceRow.hardware, Text())
    its = func.coalesce(_ListText(DeviceRow.hardware, bindparam(None, name)), "")
    quoted = [f'"{one}"' for one in values]
    return case(
        (not_(or_(*(_Holds(text, one) for one in quoted))), false()),
        (DeviceRow.hardware.is_(None), false()),
        (_Holds(its, "\\"), _listed(name, values)),
        else_=or_(*(_Holds(its, one) for one in quoted)),
    )


def _span(term: Term, now: datetime) -> ColumnElement[bool]:
    ahead = term.field.name == "certificate"
    column: ColumnElement[Any] = {
        "seen": DeviceRow.last_seen_at,
        "enrolled": DeviceRow.enrolled_at,
        "certificate": DeviceRow.certificate_expires_at,
    }[term.field.name].expression
    if not term.values:
        return column.is_(None) if term.op is Op.EQ else column.is_not(None)
    if not isinstance(term.values[0], int):
        return false()  # the parser lets nothing else through
    span = timedelta(seconds=term.values[0])
    # Longer ago is earlier: the comparison turns around.
    op, at = (term.op, now + span) if ahead else (_TURNED[term.op], now - span)
    return and_(column.is_not(None), _COMPARE[op](column, at))
