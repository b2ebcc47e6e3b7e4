"""The table of what is held or condemned of the artifacts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.adapters.tables.base import Base


class ArtifactMarkRow(Base):
    """That an owner needs a file, or is deleting it; over at ``until``, also unsaid."""

    __tablename__ = "artifact_marks"
    __table_args__ = (
        Index("ix_artifact_marks_owner", "owner"),
        Index("ix_artifact_marks_until", "until"),
    )

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str] = mapped_column(String(32), primary_key=True)
    condemned: Mapped[bool]
    until: Mapped[datetime]
