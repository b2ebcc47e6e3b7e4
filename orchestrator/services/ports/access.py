"""API tokens, sessions, and the audit log."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from orchestrator.services.records import KeyRecord, SessionRecord
from schemas.access import AuditEntry, Role


class Keys(Protocol):
    """API tokens."""

    def add(self, record: KeyRecord) -> None: ...
    def get(self, key_id: str) -> KeyRecord | None: ...
    def save(self, record: KeyRecord) -> None: ...
    def page(self, roles: Sequence[Role], before: str | None, limit: int) -> Sequence[KeyRecord]:
        """Those of some roles, newest first."""
        ...

    def of_role(self, role: Role) -> Sequence[KeyRecord]: ...
    def used(self, key_id: str, at: datetime) -> None: ...
    def revoke_subject(self, subject: str) -> None: ...
    def expire_subject(self, subject: str, at: datetime) -> None: ...


class Sessions(Protocol):
    """Sessions of the page."""

    def add(self, record: SessionRecord) -> None: ...
    def get(self, session_id: str) -> SessionRecord | None: ...
    def seen(self, session_id: str, at: datetime) -> None: ...
    def remove(self, session_id: str) -> None: ...
    def remove_of(self, key_id: str, keep: int = 0) -> None:
        """Take away a token's sessions, but for its newest few."""
        ...

    def prune(self, created_before: datetime, seen_before: datetime) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Which entries of the audit log.

    after: beyond this number, oldest first. tail: the last so many instead.
    """

    after: int = 0
    limit: int = 500
    tail: int | None = None
    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    since: datetime | None = None


class Audit(Protocol):
    """What was done, and by whom: see ``services.actor``."""

    def add(self, action: str, subject: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write an entry; it is kept if the transaction is.

        action: ``noun.verb``. detail: what a reader needs to understand it, never a secret:
        whatever looks like one is masked, and large values are cut.
        """
        ...

    def entries(self, query: AuditQuery) -> Sequence[AuditEntry]: ...
