"""The database tables. ``migrations/`` must always produce exactly these."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time; always aware and in UTC, also where the database has no zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, D102 - SQLAlchemy's signature
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, D102 - SQLAlchemy's signature
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The declarative base; its metadata is what migrations are compared with."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a plain attribute
        datetime: UtcDateTime,
        # Counters of bytes and microseconds pass 2**31; SQLite's integers are wide anyway,
        # and only a plain one numbers its rows there.
        int: BigInteger().with_variant(Integer(), "sqlite"),
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


class JobRow(Base):
    """A job and its lease.

    submission: the key that its client gave, so that a repeat is no second job. usage: by
    attempt; cpu_seconds: of all of them.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_ended_at", "ended_at"),
        Index("ux_jobs_submission", "submission", unique=True),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    project: Mapped[str] = mapped_column(String(64), default="default", server_default="default")
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    state: Mapped[str] = mapped_column(String(16), index=True)
    spec: Mapped[dict[str, Any]]
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    epoch: Mapped[int] = mapped_column(default=0)
    seq: Mapped[int] = mapped_column(default=-1)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    lease_until: Mapped[datetime | None]
    lease_hash: Mapped[str | None] = mapped_column(String(64))
    agent: Mapped[str | None] = mapped_column(String(100))
    cause: Mapped[str | None] = mapped_column(String(32))
    detail: Mapped[str | None] = mapped_column(Text)
    best: Mapped[dict[str, Any]] = mapped_column(default=dict)
    last: Mapped[dict[str, Any]] = mapped_column(default=dict)
    model: Mapped[str | None] = mapped_column(String(64))
    version: Mapped[int | None]
    not_before: Mapped[datetime | None]
    notice: Mapped[str | None] = mapped_column(Text)
    live: Mapped[dict[str, Any] | None]
    trials: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    usage: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    problems: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    submission: Mapped[str | None] = mapped_column(String(64))
    cpu_seconds: Mapped[float] = mapped_column(default=0.0, server_default="0")


class JobProfileRow(Base):
    """What a job found in its data set."""

    __tablename__ = "job_profiles"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    profile: Mapped[dict[str, Any]]


class AgentRow(Base):
    """An agent, as it last asked for work."""

    __tablename__ = "agents"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    capacity: Mapped[dict[str, Any] | None]
    seen_at: Mapped[datetime]


class JobMetricRow(Base):
    """What one epoch measured; a resumed attempt replaces the epochs it repeats.

    trial: of a sweep, from 1; 0 without one.
    """

    __tablename__ = "job_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    trial: Mapped[int] = mapped_column(primary_key=True, default=0)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    values: Mapped[dict[str, Any]]


class JobLogRow(Base):
    """One line that a job printed."""

    __tablename__ = "job_logs"
    __table_args__ = (Index("ix_job_logs_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    at: Mapped[datetime]
    level: Mapped[str] = mapped_column(String(8))
    text: Mapped[str] = mapped_column(Text)


class JobLogTotalsRow(Base):
    """How much of a job's log is stored, so that no report has to count it."""

    __tablename__ = "job_log_totals"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    lines: Mapped[int]
    size: Mapped[int]
    dropped: Mapped[int]


class ModelVersionRow(Base):
    """A registered version: its manifest, byte for byte as it was signed."""

    __tablename__ = "model_versions"

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    manifest: Mapped[str] = mapped_column(Text)
    manifest_sha256: Mapped[str] = mapped_column(String(64), index=True)
    signed: Mapped[str] = mapped_column(Text)
    job_id: Mapped[str | None] = mapped_column(String(32))
    revoked: Mapped[bool] = mapped_column(default=False)
    revoked_reason: Mapped[str | None] = mapped_column(Text)
    purged: Mapped[bool] = mapped_column(default=False, server_default=false())
    tags: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    note: Mapped[str] = mapped_column(Text, default="", server_default="")
    created_at: Mapped[datetime]


class VersionFileRow(Base):
    """A file that a version names. served: devices fetch it."""

    __tablename__ = "version_files"
    __table_args__ = (
        ForeignKeyConstraint(
            ["model", "version"], ["model_versions.model", "model_versions.version"]
        ),
        Index("ix_version_files_sha256", "sha256"),
    )

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    served: Mapped[bool]


class AliasRow(Base):
    """A name that points at one version of a model and may move."""

    __tablename__ = "aliases"

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int]


class AliasChangeRow(Base):
    """One move of an alias. version: None when it was removed."""

    __tablename__ = "alias_changes"
    __table_args__ = (Index("ix_alias_changes_alias", "model", "alias", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    model: Mapped[str] = mapped_column(String(64))
    alias: Mapped[str] = mapped_column(String(64))
    version: Mapped[int | None]
    before: Mapped[int | None]
    by: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]


class JoinTokenRow(Base):
    """A join token; of its secret only the hash is kept."""

    __tablename__ = "join_tokens"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    device_class: Mapped[str] = mapped_column(String(64))
    tags: Mapped[list[Any]]
    max_uses: Mapped[int]
    uses: Mapped[int] = mapped_column(default=0)
    revoked: Mapped[bool] = mapped_column(default=False)
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime]


class DeviceRow(Base):
    """A device. ``sequence`` is that of the last assignment signed for it."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    device_class: Mapped[str] = mapped_column(String(64), index=True)
    tags: Mapped[list[Any]]
    state: Mapped[str] = mapped_column(String(16))
    presence: Mapped[str] = mapped_column(String(16))
    boot: Mapped[str | None] = mapped_column(String(32))
    session: Mapped[int] = mapped_column(default=0)
    hardware: Mapped[dict[str, Any] | None]
    active: Mapped[dict[str, Any] | None]
    sequence: Mapped[int] = mapped_column(default=0)
    token_id: Mapped[str] = mapped_column(String(32))
    certificate_serial: Mapped[str] = mapped_column(String(64))
    certificate_expires_at: Mapped[datetime]
    spki_sha256: Mapped[str] = mapped_column(String(64))
    enrolled_at: Mapped[datetime]
    last_seen_at: Mapped[datetime | None]


class DeviceClassRow(Base):
    """What an operator said of a class of devices."""

    __tablename__ = "device_classes"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    spec: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime]


class MeasuredRow(Base):
    """What a device measured of a variant's file; the newest for each batch size.

    Its class is the device's, so a device that changes it takes its figures along.
    """

    __tablename__ = "measured"
    __table_args__ = (Index("ix_measured_sha256", "sha256"),)

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    batch: Mapped[int] = mapped_column(primary_key=True)
    benchmark: Mapped[dict[str, Any]]
    at: Mapped[datetime]


class RolloutRow(Base):
    """A rollout."""

    __tablename__ = "rollouts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    spec: Mapped[dict[str, Any]]
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    state: Mapped[str] = mapped_column(String(20), index=True)
    pause_reason: Mapped[str | None] = mapped_column(String(20))
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class WaveRow(Base):
    """A wave; ``entered_at`` is when it took its state."""

    __tablename__ = "waves"

    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    idx: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    stragglers: Mapped[bool] = mapped_column(default=False)
    entered_at: Mapped[datetime]
    evidence: Mapped[list[Any]] = mapped_column(default=list)


class ExecutionRow(Base):
    """One device in one rollout.

    sequence: of the signed assignment, 0 before it was offered. published: whether the
    retained desired message holds that assignment.
    """

    __tablename__ = "executions"
    __table_args__ = (
        Index("ix_executions_rollout_wave", "rollout_id", "wave"),
        Index("ix_executions_device_state", "device_id", "state"),
        Index("ux_executions_rollout_device", "rollout_id", "device_id", unique=True),
        Index(
            "ix_executions_unpublished",
            "id",
            sqlite_where=text("NOT published AND sequence > 0"),
            postgresql_where=text("NOT published AND sequence > 0"),
        ),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"))
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    wave: Mapped[int]
    attempt: Mapped[int] = mapped_column(default=1)
    state: Mapped[str] = mapped_column(String(20))
    seq: Mapped[int] = mapped_column(default=-1)
    previous: Mapped[str | None] = mapped_column(String(20))
    late: Mapped[str | None] = mapped_column(String(20))
    variant: Mapped[str | None] = mapped_column(String(64))
    sequence: Mapped[int] = mapped_column(default=0)
    published: Mapped[bool] = mapped_column(default=False)
    offered_at: Mapped[datetime | None]
    bytes_done: Mapped[int | None]
    bytes_total: Mapped[int | None]
    bytes_fetched: Mapped[int | None]
    cause: Mapped[str | None] = mapped_column(String(32))
    detail: Mapped[str | None] = mapped_column(Text)
    updated_at: Mapped[datetime]


class WindowRow(Base):
    """A telemetry window, stored once per (device, boot, seq)."""

    __tablename__ = "windows"
    __table_args__ = (Index("ix_windows_version", "model", "version", "device_id"),)

    device_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    boot: Mapped[str] = mapped_column(String(32), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    variant: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(8))
    start: Mapped[datetime]
    received_at: Mapped[datetime]
    n: Mapped[int]
    errors: Mapped[int]
    labelled: Mapped[int]
    correct: Mapped[int]
    payload: Mapped[dict[str, Any]]


class ApiKeyRow(Base):
    """A bearer token of the API; of its secret only the hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(16))
    subject: Mapped[str | None] = mapped_column(String(32))
    expires_at: Mapped[datetime | None]
    revoked: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]


class EventRow(Base):
    """Something that happened, in the transaction in which it did.

    A number is never given twice, also after the newest rows went: readers go on after it.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index(
            "ux_events_live",
            "subject",
            unique=True,
            sqlite_where=text("kind = 'live'"),
            postgresql_where=text("kind = 'live'"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(16))
    subject: Mapped[str] = mapped_column(String(64), index=True)
    data: Mapped[dict[str, Any]]
