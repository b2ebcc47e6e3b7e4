"""Saved selectors in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from orchestrator.adapters.mapping import row_of
from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import FleetRow, RolloutRow
from orchestrator.domain.rollout import ROLLOUT_TERMINAL
from orchestrator.services.records import FleetRecord

_OVER = [state.value for state in ROLLOUT_TERMINAL]


class SqlFleets:
    """``services.ports.Fleets`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._fleets = Records(session, FleetRow, FleetRecord)

    def put(self, record: FleetRecord) -> None:
        self._session.merge(FleetRow(**row_of(record)))
        self._session.flush()

    def get(self, name: str) -> FleetRecord | None:
        return self._fleets.get(name)

    def delete(self, name: str) -> None:
        self._session.execute(delete(FleetRow).where(FleetRow.name == name))

    def page(self, after: str | None, limit: int) -> Sequence[FleetRecord]:
        query = select(FleetRow).order_by(FleetRow.name).limit(limit)
        return self._fleets.all(query if after is None else query.where(FleetRow.name > after))

    def used_by(self, name: str) -> Sequence[str]:
        query = select(RolloutRow.id).where(
            RolloutRow.state.not_in(_OVER), RolloutRow.spec["fleet"].as_string() == name
        )
        return list(self._session.scalars(query.order_by(RolloutRow.id)))
