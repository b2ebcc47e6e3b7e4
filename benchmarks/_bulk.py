"""Many rows written at once: by COPY on PostgreSQL, by one prepared statement on SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Engine, Table, insert
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from orchestrator.adapters.tables import Base

_PORTION = 20_000


def table_of(mapped: type[Base]) -> Table:
    """The table of a mapped class."""
    table = mapped.__table__
    assert isinstance(table, Table)  # a class is mapped to nothing else here
    return table


def fill(database: Engine, table: Table, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows, each with the same columns, in one transaction; how many they were."""
    written, following = 0, iter(rows)
    with database.begin() as connection:
        while portion := list(islice(following, _PORTION)):
            if database.dialect.name == "postgresql":
                _copy(connection.connection.cursor(), database.dialect, table, portion)
            else:
                connection.execute(insert(table), [dict(row) for row in portion])
            written += len(portion)
    return written


def _copy(cursor: Any, dialect: Dialect, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    left = {
        column.name: column.default.arg
        for column in table.columns
        if column.name not in rows[0] and isinstance(column.default, ScalarElementColumnDefault)
    }
    columns = [table.c[name] for name in (*rows[0], *left)]
    to_sql = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in columns]
    of = list(zip((column.name for column in columns), to_sql, strict=True))
    names = ", ".join(f'"{column.name}"' for column in columns)
    with cursor.copy(f'COPY "{table.name}" ({names}) FROM STDIN') as copy:
        for row in rows:
            whole = {**row, **left}
            copy.write_row([whole[name] if to is None else to(whole[name]) for name, to in of])
