"""Patches in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select, update
from sqlalchemy.orm import Session

from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import ModelVersionRow, PatchRow, VersionFileRow
from orchestrator.services.records import PatchRecord

_SAME = and_(
    VersionFileRow.model == ModelVersionRow.model,
    VersionFileRow.version == ModelVersionRow.version,
    VersionFileRow.served.is_(True),
    ModelVersionRow.purged.is_(False),
)


class SqlPatches:
    """``services.ports.KeptPatches`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._records = Records(session, PatchRow, PatchRecord)

    def get(self, target: str, base: str) -> PatchRecord | None:
        return self._records.get(target, base)

    def put(self, record: PatchRecord) -> None:
        if self._records.get(record.target, record.base) is None:
            self._records.add(record)
        else:
            self._records.save(record, record.target, record.base)

    def remove(self, target: str, base: str) -> None:
        where = (PatchRow.target == target, PatchRow.base == base)
        self._session.execute(delete(PatchRow).where(*where))

    def of(self, target: str, bases: Collection[str]) -> Sequence[PatchRecord]:
        where = (PatchRow.target == target, PatchRow.base.in_(bases))
        return self._records.all(select(PatchRow).where(*where))

    def bases(self, digests: Collection[str]) -> AbstractSet[str]:
        query = select(VersionFileRow.sha256).join(ModelVersionRow, _SAME)
        return set(self._session.scalars(query.where(VersionFileRow.sha256.in_(digests))))

    def serves(self, sha256: str) -> bool:
        query = select(PatchRow.base).where(PatchRow.sha256 == sha256, _fetched())
        return self._session.scalar(query.limit(1)) is not None

    def made(self) -> Sequence[PatchRecord]:
        query = select(PatchRow).where(PatchRow.sha256.is_not(None))
        newest = (PatchRow.offered_at.desc(), PatchRow.made_at.desc(), PatchRow.base)
        return self._records.all(query.order_by(*newest))

    def stale(self, tried_before: datetime, limit: int) -> Sequence[PatchRecord]:
        nothing = and_(PatchRow.sha256.is_(None), PatchRow.offered_at < tried_before)
        query = select(PatchRow).where(or_(~_fetched(), nothing))
        return self._records.all(query.limit(limit))

    def offered(self, target: str, base: str, at: datetime) -> None:
        where = (PatchRow.target == target, PatchRow.base == base)
        self._session.execute(update(PatchRow).where(*where).values(offered_at=at))


def _fetched() -> ColumnElement[bool]:
    """Whether devices may fetch a row's target: a version that stands has it for them."""
    standing = (ModelVersionRow.revoked.is_(False), VersionFileRow.sha256 == PatchRow.target)
    found = select(VersionFileRow.version).join(ModelVersionRow, _SAME).where(*standing)
    return exists(found.correlate(PatchRow))
