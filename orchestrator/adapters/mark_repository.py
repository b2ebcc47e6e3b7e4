"""What is held or condemned of the artifacts, in SQL."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from datetime import datetime

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from orchestrator.adapters.device_repository import batched
from orchestrator.adapters.tables import ArtifactMarkRow

_PORTION = 500


class SqlArtifactMarks:
    """``services.ports.ArtifactMarks`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def hold(self, owner: str, digests: Collection[str], until: datetime) -> None:
        self._add(owner, digests, until, condemned=False)

    def condemn(self, owner: str, digests: Collection[str], until: datetime) -> None:
        self._add(owner, digests, until, condemned=True)

    def held(self, digests: Collection[str], now: datetime) -> AbstractSet[str]:
        return self._marked(digests, now, condemned=False)

    def condemned(self, digests: Collection[str], now: datetime) -> AbstractSet[str]:
        return self._marked(digests, now, condemned=True)

    def count(self, owner: str, now: datetime) -> int:
        where = (ArtifactMarkRow.owner == owner, ArtifactMarkRow.until > now)
        return self._session.scalar(select(func.count()).where(*where)) or 0

    def release(self, owner: str) -> None:
        self._session.execute(delete(ArtifactMarkRow).where(ArtifactMarkRow.owner == owner))

    def prune(self, now: datetime) -> None:
        self._session.execute(delete(ArtifactMarkRow).where(ArtifactMarkRow.until <= now))

    def _add(
        self, owner: str, digests: Collection[str], until: datetime, *, condemned: bool
    ) -> None:
        mark = {"owner": owner, "condemned": condemned, "until": until}
        for portion in batched(sorted(set(digests)), _PORTION):
            mine = (ArtifactMarkRow.owner == owner, ArtifactMarkRow.sha256.in_(portion))
            self._session.execute(delete(ArtifactMarkRow).where(*mine))
            rows = [{**mark, "sha256": sha256} for sha256 in portion]
            self._session.execute(insert(ArtifactMarkRow), rows)

    def _marked(
        self, digests: Collection[str], now: datetime, *, condemned: bool
    ) -> AbstractSet[str]:
        found: set[str] = set()
        for portion in batched(sorted(set(digests)), _PORTION):
            query = select(ArtifactMarkRow.sha256).where(
                ArtifactMarkRow.sha256.in_(portion),
                ArtifactMarkRow.condemned.is_(condemned),
                ArtifactMarkRow.until > now,
            )
            found.update(self._session.scalars(query))
        return found
