"""Model versions, their files and aliases in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import and_, delete, func, select, update
from sqlalchemy.orm import Session

from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import AliasChangeRow, AliasRow, ModelVersionRow, VersionFileRow
from orchestrator.services.ports import Standing
from orchestrator.services.records import VersionRecord
from schemas.model import AliasChange

_SAME = and_(
    VersionFileRow.model == ModelVersionRow.model,
    VersionFileRow.version == ModelVersionRow.version,
)


class SqlModels:
    """``services.ports.Models`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._versions = Records(session, ModelVersionRow, VersionRecord)

    def add(self, record: VersionRecord) -> None:
        self._versions.add(record)

    def add_files(self, model: str, version: int, files: Mapping[str, bool]) -> None:
        self._session.add_all(
            VersionFileRow(model=model, version=version, sha256=sha256, served=served)
            for sha256, served in files.items()
        )
        self._session.flush()

    def save(self, record: VersionRecord) -> None:
        self._versions.save(record, record.model, record.version)

    def set_purged(self, model: str, version: int, *, purged: bool = True) -> None:
        where = (ModelVersionRow.model == model, ModelVersionRow.version == version)
        self._session.execute(update(ModelVersionRow).where(*where).values(purged=purged))

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

    def serves(self, sha256: str) -> bool:
        query = select(VersionFileRow.version).join(ModelVersionRow, _SAME)
        query = query.where(
            VersionFileRow.sha256 == sha256,
            VersionFileRow.served.is_(True),
            ModelVersionRow.purged.is_(False),
            ModelVersionRow.revoked.is_(False),
        )
        return self._session.scalar(query.limit(1)) is not None

    def standing(self) -> Sequence[Standing]:
        row = ModelVersionRow
        query = select(row.model, row.version, row.manifest_sha256, row.manifest_size)
        query = query.where(row.revoked.is_(False), row.purged.is_(False))
        return [Standing(*found) for found in self._session.execute(query)]

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

    def drop_alias(self, model: str, alias: str) -> None:
        where = (AliasRow.model == model, AliasRow.alias == alias)
        self._session.execute(delete(AliasRow).where(*where))

    def add_alias_change(self, model: str, change: AliasChange) -> None:
        self._session.add(AliasChangeRow(model=model, **change.model_dump()))
        self._session.flush()

    def alias_changes(
        self, model: str, alias: str, before: int | None, limit: int
    ) -> Sequence[tuple[int, AliasChange]]:
        query = select(AliasChangeRow).where(
            AliasChangeRow.model == model, AliasChangeRow.alias == alias
        )
        if before is not None:
            query = query.where(AliasChangeRow.id < before)
        rows = self._session.scalars(query.order_by(AliasChangeRow.id.desc()).limit(limit))
        return [(row.id, AliasChange.model_validate(row, from_attributes=True)) for row in rows]
