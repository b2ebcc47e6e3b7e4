"""Many new rows that differ in few columns, written by as few statements as the database takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Table, func, insert, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

_PORTION = 10_000


def insert_alike(
    session: Session, table: Table, same: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Insert rows.

    Args:
        session: the transaction's.
        table: where to.
        same: what all of them have.
        rows: what each has beside it, all of them the same columns.
    """
    left = iter(rows)
    postgresql = session.get_bind().dialect.name == "postgresql"
    while portion := list(islice(left, _PORTION)):
        if postgresql:
            # A row by itself is a message to this database, and costs it as much as ten here.
            session.execute(_unnested(table, same, portion))
        else:
            session.execute(insert(table), [{**same, **row} for row in portion])


def _unnested(table: Table, same: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Any:
    """One statement; what differs comes as an array for each column."""
    names = list(rows[0])
    arrays = [literal([row[name] for row in rows], ARRAY(table.c[name].type)) for name in names]
    each = func.unnest(*arrays).table_valued(*names).render_derived()
    constants = [literal(value, table.c[name].type).label(name) for name, value in same.items()]
    whole = select(*(each.c[name] for name in names), *constants)
    return insert(table).from_select([*names, *same], whole, include_defaults=False)
