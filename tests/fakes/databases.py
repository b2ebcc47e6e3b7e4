"""Databases that are brought to today's tables once and copied: migrating takes most of a test."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Engine
from sqlalchemy.engine import Dialect
from sqlalchemy.util import LRUCache

from orchestrator.adapters.database import migrate
from orchestrator.adapters.unit_of_work import make_engine

_dialects: dict[str, Dialect] = {}
_compiled: LRUCache[object, object] = LRUCache(2000)


def sharing(engine: Engine) -> Engine:
    """Have an engine use what the process compiled for others: a statement, once for all tests.

    SQLAlchemy keeps compiled statements by dialect, of which each engine has its own.
    """
    if engine.dialect.name not in _dialects:
        engine.connect().close()  # with it the dialect learns what server it speaks to
        _dialects[engine.dialect.name] = engine.dialect
    engine.dialect = _dialects[engine.dialect.name]
    engine.update_execution_options(compiled_cache=_compiled)
    return engine


def migrate_at(url: str) -> None:
    """Bring the database at ``url`` to today's tables and leave no connection open."""
    engine = make_engine(url)
    try:
        migrate(engine)
    finally:
        engine.dispose()


@cache
def migrated() -> bytes:
    """The file of a migrated, empty SQLite database."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "argosy.db"
        migrate_at(f"sqlite:///{file}")
        return file.read_bytes()


def migrated_sqlite(file: Path) -> str:
    """Make ``file`` a migrated, empty database and give its SQLAlchemy URL."""
    file.write_bytes(migrated())
    return f"sqlite:///{file}"
