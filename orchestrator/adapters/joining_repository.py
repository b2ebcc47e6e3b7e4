"""Devices that a dynamic rollout may gain or lose, in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, not_, select, update
from sqlalchemy.orm import Session

from orchestrator.adapters.device_repository import fitting
from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import DeviceRow, ExecutionRow, RolloutRow, WaveRow
from orchestrator.services.records import Moved, RolloutRecord, Target
from schemas.device import Presence
from schemas.rollout import ExecState, RolloutState

_MOVED = (ExecutionRow.id, ExecutionRow.device_id, ExecutionRow.rollout_id, ExecutionRow.wave)
_IS_ONLINE = DeviceRow.presence == Presence.ONLINE.value


class SqlJoining:
    """``services.ports.Joining`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rollouts = Records(session, RolloutRow, RolloutRecord)

    def dynamic(self) -> Sequence[RolloutRecord]:
        query = select(RolloutRow).where(
            RolloutRow.state == RolloutState.RUNNING.value,
            RolloutRow.spec["dynamic"].as_boolean(),
        )
        return self._rollouts.all(query.order_by(RolloutRow.id))

    def standing(self, model: str) -> Sequence[RolloutRecord]:
        query = select(RolloutRow).where(
            RolloutRow.state.in_([RolloutState.RUNNING.value, RolloutState.PAUSED.value]),
            RolloutRow.model == model,
            RolloutRow.spec["dynamic"].as_boolean(),
        )
        return self._rollouts.all(query.order_by(RolloutRow.id))

    def joiners(self, rollout_id: str, target: Target, now: datetime, limit: int) -> Sequence[str]:
        its = select(ExecutionRow.id).where(
            ExecutionRow.rollout_id == rollout_id, ExecutionRow.device_id == DeviceRow.id
        )
        query = (
            select(DeviceRow.id)
            .where(*fitting(target, now), ~its.correlate(DeviceRow).exists())
            .order_by(DeviceRow.id)
            .limit(limit)
        )
        return list(self._session.scalars(query))

    def returning(
        self, rollout_id: str, target: Target, now: datetime, limit: int
    ) -> Sequence[str]:
        # By wave and state, as the index has them.
        waves = select(WaveRow.idx).where(WaveRow.rollout_id == rollout_id)
        query = (
            select(ExecutionRow.id)
            .join(DeviceRow, DeviceRow.id == ExecutionRow.device_id)
            .where(
                ExecutionRow.rollout_id == rollout_id,
                ExecutionRow.wave.in_(waves),
                ExecutionRow.state == ExecState.REMOVED.value,
                ExecutionRow.sequence == 0,
                _IS_ONLINE,
                *fitting(target, now),
            )
            .order_by(ExecutionRow.id)
            .limit(limit)
        )
        return list(self._session.scalars(query))

    def leaving(self, rollout_id: str, target: Target, now: datetime, limit: int) -> Sequence[str]:
        # Those that do not match are looked up first: mostly they are few, and in no execution.
        others = select(DeviceRow.id).where(not_(and_(*fitting(target, now))))
        query = (
            select(ExecutionRow.id)
            .where(
                ExecutionRow.rollout_id == rollout_id,
                ExecutionRow.device_id.in_(others),
                ExecutionRow.state == ExecState.SCHEDULED.value,
                ExecutionRow.sequence == 0,
            )
            .limit(limit)
        )
        return list(self._session.scalars(query))

    def take_back(self, ids: Sequence[str], wave: int, now: datetime) -> Sequence[Moved]:
        # Nothing was offered, so it is the attempt that it was.
        again = (
            update(ExecutionRow)
            .where(ExecutionRow.id.in_(ids), ExecutionRow.state == ExecState.REMOVED.value)
            .values(
                state=ExecState.SCHEDULED.value,
                wave=wave,
                previous=None,
                detail=None,
                due_at=None,
                updated_at=now,
            )
            .returning(*_MOVED)
            .execution_options(synchronize_session=False)
        )
        return [Moved(*row) for row in self._session.execute(again)]
