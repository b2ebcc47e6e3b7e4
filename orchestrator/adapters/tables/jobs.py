"""Tables of jobs, their history and their agents."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.adapters.tables.base import Base


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
