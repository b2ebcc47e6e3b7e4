"""One suite, every database: each test of a contract runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest

from orchestrator.adapters.database import migrate
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, tmp_path):
    """A migrated, empty database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'argosy.db'}"
    else:
        url = request.getfixturevalue("fresh_postgres_url")
    made = make_engine(url)
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture
def uow(engine):
    return SqlUnitOfWork(engine)
