"""One suite, every database: each test of a contract runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest

from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from tests.fakes.databases import migrated_sqlite, sharing


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, tmp_path):
    """A migrated, empty database."""
    if request.param == "sqlite":
        url = migrated_sqlite(tmp_path / "argosy.db")
    else:
        url = request.getfixturevalue("migrated_postgres_url")
    made = sharing(make_engine(url))
    yield made
    made.dispose()


@pytest.fixture
def uow(engine):
    return SqlUnitOfWork(engine)
