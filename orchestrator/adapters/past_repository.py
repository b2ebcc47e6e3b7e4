"""What rollouts did with one device, in SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.orm import Session

from orchestrator.adapters.mapping import to_record
from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import ExecutionRow, RolloutRow, WaveRow
from orchestrator.domain.rollout import ROLLOUT_TERMINAL
from orchestrator.domain.why_facts import Wave
from orchestrator.services.records import ExecutionRecord, RolloutRecord
from schemas.rollout import WaveState

_OVER = [state.value for state in ROLLOUT_TERMINAL]


class SqlPast:
    """``services.ports.Past`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rollouts = Records(session, RolloutRow, RolloutRecord)

    def parts(self, device_id: str, limit: int) -> Sequence[tuple[ExecutionRecord, RolloutRecord]]:
        query = (
            select(ExecutionRow, RolloutRow)
            .join(RolloutRow, RolloutRow.id == ExecutionRow.rollout_id)
            .where(ExecutionRow.device_id == device_id, RolloutRow.planned.is_(True))
            .order_by(ExecutionRow.id.desc())
            .limit(limit)
        )
        return [
            (to_record(ExecutionRecord, execution), to_record(RolloutRecord, rollout))
            for execution, rollout in self._session.execute(query)
        ]

    def others(
        self, device_id: str, versions: Mapping[str, int], limit: int
    ) -> Sequence[RolloutRecord]:
        its = exists().where(
            ExecutionRow.rollout_id == RolloutRow.id, ExecutionRow.device_id == device_id
        )
        named = (
            and_(RolloutRow.model == model, RolloutRow.version == version)
            for model, version in versions.items()
        )
        query = (
            select(RolloutRow)
            .where(or_(RolloutRow.state.not_in(_OVER), *named))
            .where(RolloutRow.planned.is_(True), ~its)
            .order_by(RolloutRow.id.desc())
            .limit(limit)
        )
        return self._rollouts.all(query)

    def waves(self, rollouts: Collection[str]) -> Mapping[str, tuple[Wave, ...]]:
        columns = (WaveRow.rollout_id, WaveRow.state, WaveRow.stragglers, WaveRow.joiners)
        query = select(*columns).where(WaveRow.rollout_id.in_(sorted(rollouts)))
        found: defaultdict[str, list[Wave]] = defaultdict(list)
        for rollout, state, stragglers, joiners in self._session.execute(
            query.order_by(WaveRow.rollout_id, WaveRow.idx)
        ):
            found[rollout].append(Wave(WaveState(state), stragglers, joiners))
        return {rollout: tuple(waves) for rollout, waves in found.items()}
