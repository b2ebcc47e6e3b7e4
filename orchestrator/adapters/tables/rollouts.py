"""Tables of rollouts, their waves and their executions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, false, text
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.adapters.tables.base import Base


class RolloutRow(Base):
    """A rollout. ``reason``: why it is paused or was aborted. ``planned``: all of it is there.

    takes_back: the version that it leads devices away from, rollback_of: of which rollout.
    turned_at: since when it rolls back, back_to: to this version, if one was named.
    """

    __tablename__ = "rollouts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    spec: Mapped[dict[str, Any]]
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    state: Mapped[str] = mapped_column(String(20), index=True)
    pause_reason: Mapped[str | None] = mapped_column(String(20))
    reason: Mapped[str | None] = mapped_column(Text)
    planned: Mapped[bool] = mapped_column(default=True)
    fleet_where: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(default=1, server_default="1")
    activated_at: Mapped[datetime | None]
    requested_by: Mapped[str | None] = mapped_column(String(100))
    approved_by: Mapped[str | None] = mapped_column(String(100))
    rollback_of: Mapped[str | None] = mapped_column(String(32), index=True)
    takes_back: Mapped[int | None]
    back_to: Mapped[int | None]
    turned_at: Mapped[datetime | None]
    promoted_by: Mapped[str | None] = mapped_column(String(100))


class WaveRow(Base):
    """A wave; ``entered_at`` is when it took its state."""

    __tablename__ = "waves"

    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    idx: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    stragglers: Mapped[bool] = mapped_column(default=False)
    joiners: Mapped[bool] = mapped_column(default=False)
    entered_at: Mapped[datetime]
    evidence: Mapped[list[Any]] = mapped_column(default=list)
    looks: Mapped[int] = mapped_column(default=0, server_default="0")
    looked_at: Mapped[datetime | None]
    promoted_by: Mapped[str | None] = mapped_column(String(100))


class ExecutionRow(Base):
    """One device in one rollout.

    sequence: of the signed assignment, 0 before it was offered. published: whether the
    retained desired message holds that assignment. due_at: when its next timer runs out. proceed:
    its device is to go on with what waits.
    """

    __tablename__ = "executions"
    __table_args__ = (
        Index("ix_executions_rollout_state", "rollout_id", "wave", "state"),
        Index(
            "ix_executions_due",
            "rollout_id",
            "due_at",
            sqlite_where=text("due_at IS NOT NULL"),
            postgresql_where=text("due_at IS NOT NULL"),
        ),
        Index("ix_executions_device_state", "device_id", "state"),
        Index(
            "ix_executions_offered",
            "rollout_id",
            "offered_at",
            sqlite_where=text("offered_at IS NOT NULL"),
            postgresql_where=text("offered_at IS NOT NULL"),
        ),
        Index("ux_executions_rollout_device", "rollout_id", "device_id", unique=True),
        Index(
            "ix_executions_outbox",
            "rollout_id",
            "state",
            "id",
            sqlite_where=text("NOT published AND sequence > 0"),
            postgresql_where=text("NOT published AND sequence > 0"),
        ),
        Index(
            "ix_executions_late",
            "rollout_id",
            "wave",
            sqlite_where=text("late IS NOT NULL"),
            postgresql_where=text("late IS NOT NULL"),
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
    bytes_earlier: Mapped[int] = mapped_column(default=0)
    cause: Mapped[str | None] = mapped_column(String(32))
    detail: Mapped[str | None] = mapped_column(Text)
    retryable: Mapped[bool] = mapped_column(default=False)
    due_at: Mapped[datetime | None]
    waits_until: Mapped[datetime | None]
    proceed: Mapped[bool] = mapped_column(default=False, server_default=false())
    before_version: Mapped[int | None]
    before_variant: Mapped[str | None] = mapped_column(String(64))
    updated_at: Mapped[datetime]
