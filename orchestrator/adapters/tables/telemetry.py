"""The table of telemetry windows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.adapters.tables.base import Base


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
