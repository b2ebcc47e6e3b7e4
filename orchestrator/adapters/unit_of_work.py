"""Transactions over SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from orchestrator.adapters.device_repository import SqlDevices
from orchestrator.adapters.job_repository import SqlJobs
from orchestrator.adapters.model_repository import SqlModels
from orchestrator.adapters.rollout_repository import SqlRollouts
from orchestrator.adapters.telemetry_repository import SqlEvents, SqlKeys, SqlTelemetry
from orchestrator.errors import Unavailable
from orchestrator.services.ports import (
    Devices,
    Events,
    Jobs,
    Keys,
    Models,
    Rollouts,
    Telemetry,
    Transaction,
)

_BUSY_MS = 10_000


class SqlTransaction:
    """``services.ports.Transaction`` over one SQLAlchemy session."""

    def __init__(self, session: Session) -> None:
        self.jobs: Jobs = SqlJobs(session)
        self.models: Models = SqlModels(session)
        self.devices: Devices = SqlDevices(session)
        self.rollouts: Rollouts = SqlRollouts(session)
        self.telemetry: Telemetry = SqlTelemetry(session)
        self.keys: Keys = SqlKeys(session)
        self.events: Events = SqlEvents(session)


class SqlUnitOfWork:
    """``services.ports.UnitOfWork``: each call is one transaction.

    Raises:
        Unavailable: the database cannot be reached or stays locked.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def __call__(self) -> Iterator[Transaction]:
        """Commit when the block ends, roll back when it raises."""
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                yield SqlTransaction(session)
        except OperationalError as error:
            msg = f"the database does not answer: {error.orig}"
            raise Unavailable(msg, hint="see `argosy doctor`") from error


def make_engine(url: str) -> Engine:
    """An engine for an SQLAlchemy URL.

    SQLite runs in WAL mode and takes its write lock when a transaction begins, so two
    writers wait for each other instead of failing half-way.
    """
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20)
    engine = create_engine(url, connect_args={"timeout": _BUSY_MS / 1000})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_MS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
