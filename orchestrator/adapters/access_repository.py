"""API tokens, sessions and the audit log in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import ApiKeyRow, AuditRow, SessionRow
from orchestrator.clock import utc_now
from orchestrator.services import actor
from orchestrator.services.masking import masked
from orchestrator.services.ports import AuditQuery, Clock
from orchestrator.services.records import KeyRecord, SessionRecord
from schemas.access import AUDIT_START, AuditEntry, Role, audit_digest

_UNSYNCHRONIZED = {"synchronize_session": False}
_MAX_SUBJECT = 200


class SqlKeys:
    """``services.ports.Keys`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._keys = Records(session, ApiKeyRow, KeyRecord)

    def add(self, record: KeyRecord) -> None:
        self._keys.add(record)

    def get(self, key_id: str) -> KeyRecord | None:
        return self._keys.get(key_id)

    def save(self, record: KeyRecord) -> None:
        self._keys.save(record, record.id)

    def page(self, roles: Sequence[Role], before: str | None, limit: int) -> Sequence[KeyRecord]:
        wanted = ApiKeyRow.role.in_([role.value for role in roles])
        return self._keys.newest(ApiKeyRow.id, before, limit, wanted)

    def of_role(self, role: Role) -> Sequence[KeyRecord]:
        return self._keys.all(select(ApiKeyRow).where(ApiKeyRow.role == role.value))

    def used(self, key_id: str, at: datetime) -> None:
        newer = or_(ApiKeyRow.last_used_at.is_(None), ApiKeyRow.last_used_at < at)
        self._session.execute(
            update(ApiKeyRow).where(ApiKeyRow.id == key_id, newer).values(last_used_at=at)
        )

    def revoke_subject(self, subject: str) -> None:
        revoke = update(ApiKeyRow).where(ApiKeyRow.subject == subject).values(revoked=True)
        self._session.execute(revoke)

    def expire_subject(self, subject: str, at: datetime) -> None:
        expire = update(ApiKeyRow).where(ApiKeyRow.subject == subject).values(expires_at=at)
        self._session.execute(expire)


class SqlSessions:
    """``services.ports.Sessions`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sessions = Records(session, SessionRow, SessionRecord)

    def add(self, record: SessionRecord) -> None:
        self._sessions.add(record)

    def get(self, session_id: str) -> SessionRecord | None:
        return self._sessions.get(session_id)

    def seen(self, session_id: str, at: datetime) -> None:
        older = SessionRow.seen_at < at
        seen = update(SessionRow).where(SessionRow.id == session_id, older).values(seen_at=at)
        self._session.execute(seen)

    def remove(self, session_id: str) -> None:
        self._session.execute(delete(SessionRow).where(SessionRow.id == session_id))

    def remove_of(self, key_id: str, keep: int = 0) -> None:
        ids = select(SessionRow.id).where(SessionRow.key_id == key_id)
        newest = SessionRow.created_at.desc()
        gone = list(self._session.scalars(ids.order_by(newest, SessionRow.id).offset(keep)))
        self._session.execute(
            delete(SessionRow).where(SessionRow.id.in_(gone)), execution_options=_UNSYNCHRONIZED
        )

    def prune(self, created_before: datetime, seen_before: datetime) -> None:
        old = or_(SessionRow.created_at < created_before, SessionRow.seen_at < seen_before)
        self._session.execute(delete(SessionRow).where(old), execution_options=_UNSYNCHRONIZED)


class SqlAudit:
    """``services.ports.Audit`` over SQLAlchemy.

    Writers run one after the other (``SqlUnitOfWork``), so the last entry that one of them
    sees is the last there is.
    """

    def __init__(self, session: Session, clock: Clock = utc_now) -> None:
        self._session = session
        self._clock = clock

    def add(self, action: str, subject: str, detail: Mapping[str, Any] | None = None) -> None:
        newest = select(AuditRow.seq, AuditRow.digest).order_by(AuditRow.seq.desc()).limit(1)
        last = self._session.execute(newest).first()
        entry = AuditEntry(
            seq=1 if last is None else last.seq + 1,
            at=self._clock(),
            actor=actor.current(),
            action=action,
            subject=masked(subject)[:_MAX_SUBJECT],
            detail=masked(dict(detail or {})),
            previous=AUDIT_START if last is None else last.digest,
            digest=AUDIT_START,
        )
        fields = {**dict(entry), "digest": audit_digest(entry)}
        self._session.add(AuditRow(**fields))
        self._session.flush()

    def entries(self, query: AuditQuery) -> Sequence[AuditEntry]:
        rows = select(AuditRow).where(AuditRow.seq > query.after)
        named = (
            (AuditRow.actor, query.actor),
            (AuditRow.action, query.action),
            (AuditRow.subject, query.subject),
        )
        for column, value in named:
            rows = rows if value is None else rows.where(column == value)
        if query.since is not None:
            rows = rows.where(AuditRow.at >= query.since)
        if query.tail is None:
            found = self._session.scalars(rows.order_by(AuditRow.seq).limit(query.limit))
            return [_entry(row) for row in found]
        newest = rows.order_by(AuditRow.seq.desc()).limit(query.tail)
        return [_entry(row) for row in self._session.scalars(newest)][::-1]


def _entry(row: AuditRow) -> AuditEntry:
    # Nothing is checked here: what was tampered with must reach whoever verifies it.
    names = AuditEntry.model_fields
    return AuditEntry.model_construct(**{name: getattr(row, name) for name in names})
