"""Agents in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from orchestrator.adapters.mapping import to_row
from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import AgentRow
from orchestrator.services.records import AgentRecord


class SqlAgents:
    """``services.ports.Agents`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._agents = Records(session, AgentRow, AgentRecord)

    def save(self, record: AgentRecord) -> None:
        self._session.merge(to_row(AgentRow, record))
        self._session.flush()

    def get(self, name: str) -> AgentRecord | None:
        return self._agents.get(name)

    def all(self) -> Sequence[AgentRecord]:
        return self._agents.all(select(AgentRow).order_by(AgentRow.name))

    def prune(self, before: datetime, keep: int) -> None:
        newest = select(AgentRow.seen_at).order_by(AgentRow.seen_at.desc())
        bound = self._session.scalar(newest.offset(keep - 1).limit(1))
        oldest = before if bound is None else max(bound, before)
        self._session.execute(delete(AgentRow).where(AgentRow.seen_at < oldest))
