"""The table of experiments."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.adapters.tables.base import Base


class ExperimentRow(Base):
    """An experiment; its two arms are rollouts."""

    __tablename__ = "experiments"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    spec: Mapped[dict[str, Any]]
    model: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), index=True)
    rollout_a: Mapped[str] = mapped_column(ForeignKey("rollouts.id"))
    rollout_b: Mapped[str] = mapped_column(ForeignKey("rollouts.id"))
    reason: Mapped[str | None] = mapped_column(Text)
    kept: Mapped[str | None] = mapped_column(String(1))
    kept_rollout: Mapped[str | None] = mapped_column(ForeignKey("rollouts.id"))
    differences: Mapped[list[Any]] = mapped_column(default=list)
    notes: Mapped[list[Any]] = mapped_column(default=list)
    requested_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
