"""The table of what happened."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.adapters.tables.base import Base


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
