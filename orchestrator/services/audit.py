"""Reading the audit log. It is written where things are done: ``tx.audit.add``."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.services.ports import AuditQuery, UnitOfWork
from schemas.access import AuditEntry


class AuditService:
    """What the API does with the audit log."""

    def __init__(self, uow: UnitOfWork) -> None:
        self._uow = uow

    def entries(self, query: AuditQuery) -> Sequence[AuditEntry]:
        """Entries by number."""
        with self._uow.read() as tx:
            return tx.audit.entries(query)
