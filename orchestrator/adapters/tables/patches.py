"""The table of patches between files."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.adapters.tables.base import Base


class PatchRow(Base):
    """What is known of making one file of another; see ``services.records.PatchRecord``."""

    __tablename__ = "patches"
    __table_args__ = (Index("ix_patches_sha256", "sha256"),)

    target: Mapped[str] = mapped_column(String(64), primary_key=True)
    base: Mapped[str] = mapped_column(String(64), primary_key=True)
    sha256: Mapped[str | None] = mapped_column(String(64))
    leaves_sha256: Mapped[str | None] = mapped_column(String(64))
    size: Mapped[int]
    made_at: Mapped[datetime | None]
    offered_at: Mapped[datetime]
    owner: Mapped[str | None] = mapped_column(String(32))
    until: Mapped[datetime | None]
