"""Model versions and aliases in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import AliasRow, ModelVersionRow
from orchestrator.services.records import VersionRecord


class SqlModels:
    """``services.ports.Models`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._versions = Records(session, ModelVersionRow, VersionRecord)

    def add(self, record: VersionRecord) -> None:
        self._versions.add(record)

    def get(self, model: str, version: int) -> VersionRecord | None:
        return self._versions.get(model, version)

    def by_manifest(self, model: str, manifest_sha256: str) -> VersionRecord | None:
        query = select(ModelVersionRow).where(
            ModelVersionRow.model == model, ModelVersionRow.manifest_sha256 == manifest_sha256
        )
        return next(iter(self._versions.all(query.limit(1))), None)

    def by_job(self, model: str, job_id: str) -> VersionRecord | None:
        query = select(ModelVersionRow).where(
            ModelVersionRow.model == model, ModelVersionRow.job_id == job_id
        )
        return next(iter(self._versions.all(query.limit(1))), None)

    def by_digest(self, manifest_sha256: str) -> VersionRecord | None:
        query = select(ModelVersionRow).where(ModelVersionRow.manifest_sha256 == manifest_sha256)
        return next(iter(self._versions.all(query.limit(1))), None)

    def last_version(self, model: str) -> int:
        query = select(func.max(ModelVersionRow.version)).where(ModelVersionRow.model == model)
        return self._session.scalar(query) or 0

    def versions(self, model: str) -> Sequence[int]:
        query = select(ModelVersionRow.version).where(ModelVersionRow.model == model)
        return list(self._session.scalars(query.order_by(ModelVersionRow.version.desc())))

    def names(self, after: str | None, limit: int) -> Sequence[str]:
        query = select(ModelVersionRow.model).distinct().order_by(ModelVersionRow.model)
        if after is not None:
            query = query.where(ModelVersionRow.model > after)
        return list(self._session.scalars(query.limit(limit)))

    def aliases(self, model: str) -> Mapping[str, int]:
        rows = self._session.scalars(select(AliasRow).where(AliasRow.model == model))
        return {row.alias: row.version for row in rows}

    def set_alias(self, model: str, alias: str, version: int) -> None:
        self._session.merge(AliasRow(model=model, alias=alias, version=version))
        self._session.flush()
