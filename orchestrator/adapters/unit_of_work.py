"""Transactions over SQLite or PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from orchestrator.adapters.access_repository import SqlAudit, SqlKeys, SqlSessions
from orchestrator.adapters.agent_repository import SqlAgents
from orchestrator.adapters.device_class_repository import SqlDeviceClasses, SqlMeasured
from orchestrator.adapters.device_repository import SqlDevices
from orchestrator.adapters.event_repository import SqlEvents
from orchestrator.adapters.execution_repository import SqlExecutions
from orchestrator.adapters.experiment_repository import SqlExperiments
from orchestrator.adapters.fleet_repository import SqlFleets
from orchestrator.adapters.fleet_trust_repository import SqlFleetTrust
from orchestrator.adapters.holdings_repository import SqlHoldings
from orchestrator.adapters.job_history_repository import SqlJobHistory
from orchestrator.adapters.job_repository import SqlJobs
from orchestrator.adapters.joining_repository import SqlJoining
from orchestrator.adapters.mark_repository import SqlArtifactMarks
from orchestrator.adapters.model_repository import SqlModels
from orchestrator.adapters.outbox_repository import SqlOutbox
from orchestrator.adapters.past_repository import SqlPast
from orchestrator.adapters.patch_repository import SqlPatches
from orchestrator.adapters.rollout_repository import SqlRollouts
from orchestrator.adapters.sample_repository import SqlPlaces, SqlSamples
from orchestrator.adapters.taking_back_repository import SqlTakingBack
from orchestrator.adapters.telemetry_repository import SqlTelemetry
from orchestrator.clock import utc_now
from orchestrator.errors import Unavailable
from orchestrator.services.ports import (
    Agents,
    ArtifactMarks,
    Audit,
    Clock,
    DeviceClasses,
    Devices,
    Events,
    Executions,
    Experiments,
    Fleets,
    FleetTrust,
    HoldingsView,
    JobHistory,
    Jobs,
    Joining,
    KeptPatches,
    Keys,
    Measured,
    Models,
    Outbox,
    Past,
    Places,
    Rollouts,
    Samples,
    Sessions,
    TakingBack,
    Telemetry,
    Transaction,
)

_BUSY_MS = 10_000
_CACHE_KIB = 16 * 1024
_CHECKPOINT_PAGES = 4_000
_READ_ONLY = "argosy_read_only"
_POSTGRES = {
    False: "SELECT pg_advisory_xact_lock(1095910223)",
    True: "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
}
"""What a transaction begins with on PostgreSQL, by whether it only reads."""


class SqlTransaction:
    """``services.ports.Transaction`` over one SQLAlchemy session."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self.jobs: Jobs = SqlJobs(session)
        self.job_history: JobHistory = SqlJobHistory(session)
        self.agents: Agents = SqlAgents(session)
        self.models: Models = SqlModels(session)
        self.patches: KeptPatches = SqlPatches(session)
        self.devices: Devices = SqlDevices(session)
        self.fleet_trust: FleetTrust = SqlFleetTrust(session)
        self.device_classes: DeviceClasses = SqlDeviceClasses(session)
        self.measured: Measured = SqlMeasured(session)
        self.fleets: Fleets = SqlFleets(session)
        self.rollouts: Rollouts = SqlRollouts(session)
        self.outbox: Outbox = SqlOutbox(session)
        self.past: Past = SqlPast(session)
        self.executions: Executions = SqlExecutions(session)
        self.experiments: Experiments = SqlExperiments(session)
        self.joining: Joining = SqlJoining(session)
        self.taking_back: TakingBack = SqlTakingBack(session)
        self.telemetry: Telemetry = SqlTelemetry(session)
        self.samples: Samples = SqlSamples(session)
        self.places: Places = SqlPlaces(session)
        self.holdings: HoldingsView = SqlHoldings(session)
        self.artifact_marks: ArtifactMarks = SqlArtifactMarks(session)
        self.keys: Keys = SqlKeys(session)
        self.sessions: Sessions = SqlSessions(session)
        self.audit: Audit = SqlAudit(session, clock)
        self.events: Events = SqlEvents(session)


class SqlUnitOfWork:
    """``services.ports.UnitOfWork``: each call is one transaction.

    Writing transactions run one after the other, on SQLite by its write lock and on
    PostgreSQL by an advisory lock: so they cannot deadlock, two registrations never take
    the same number, and the ids of events become visible in order. Readers see a snapshot
    and hold nobody up. Within a process threads wait for their turn by a lock of ours:
    SQLite's own way is to look again after ever longer pauses.

    Args:
        engine: see ``make_engine``.
        clock: when entries of the audit log are said to be written.

    Raises:
        Unavailable: the database cannot be reached, stays locked or fails; anything but
            what was written being at fault.
    """

    def __init__(self, engine: Engine, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._turn = threading.Lock()
        self._writing = engine
        self._reading = engine.execution_options(**{_READ_ONLY: True})

    def __call__(self) -> AbstractContextManager[Transaction]:
        """Commit when the block ends, roll back when it raises."""
        if self._writing.dialect.name == "sqlite":
            return self._in_turn()
        return self._transaction(self._writing)

    def read(self) -> AbstractContextManager[Transaction]:
        """Look at one state of the database; nothing may be written."""
        return self._transaction(self._reading)

    @contextmanager
    def _in_turn(self) -> Iterator[Transaction]:
        if not self._turn.acquire(timeout=_BUSY_MS / 1000):
            msg = "the database does not answer: another writer has it"
            raise Unavailable(msg, hint="see `argosy doctor`")
        try:
            with self._transaction(self._writing) as tx:
                yield tx
        finally:
            self._turn.release()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Transaction]:
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                # Begun now, not by the first statement: who looks at files within a writing
                # transaction relies on being the only one.
                session.connection()
                if engine.dialect.name == "postgresql":
                    session.execute(text(_POSTGRES[engine is self._reading]))
                yield SqlTransaction(session, self._clock)
        except (IntegrityError, DataError):
            raise
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            msg = f"the database does not answer: {cause}"
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
        # Telemetry writes a page of each device: they are found in memory, and copied together.
        f"cache_size={-_CACHE_KIB}",
        f"wal_autocheckpoint={_CHECKPOINT_PAGES}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    reading = connection.get_execution_options().get(_READ_ONLY)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
