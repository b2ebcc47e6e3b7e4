"""Rollouts, waves and executions in SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice

from sqlalchemy import and_, delete, func, insert, select, update
from sqlalchemy.orm import Session

from orchestrator.adapters.bulk import insert_alike
from orchestrator.adapters.execution_conditions import passed_over
from orchestrator.adapters.mapping import fill, row_of, to_row
from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import Base, ExecutionRow, RolloutRow, WaveRow
from orchestrator.services.records import ExecutionRecord, RolloutRecord, WaveRecord
from schemas.rollout import ExecState, RolloutState, WaveState
from schemas.rollout_view import NOT_OFFERED

_EXECUTIONS = Base.metadata.tables[ExecutionRow.__tablename__]
_INSERT = insert(_EXECUTIONS)
"""Past the ORM, which would take several times as long."""

_PORTION = 5_000
"""Executions that are inserted at once."""


class SqlRollouts:
    """``services.ports.Rollouts`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rollouts = Records(session, RolloutRow, RolloutRecord)
        self._waves = Records(session, WaveRow, WaveRecord)
        self._executions = Records(session, ExecutionRow, ExecutionRecord)

    def add(
        self,
        rollout: RolloutRecord,
        waves: Iterable[WaveRecord],
        executions: Iterable[ExecutionRecord],
    ) -> None:
        self._rollouts.add(rollout)
        self._session.add_all(to_row(WaveRow, wave) for wave in waves)
        self._session.flush()
        left = (row_of(execution) for execution in executions)
        while portion := list(islice(left, _PORTION)):
            self._session.execute(_INSERT, portion)

    def schedule(
        self, rollout_id: str, members: Iterable[tuple[str, str, int]], at: datetime
    ) -> None:
        same = row_of(
            ExecutionRecord(id="", rollout_id=rollout_id, device_id="", wave=0, updated_at=at)
        )
        for name in ("id", "device_id", "wave"):
            del same[name]
        rows = (
            {"id": execution, "device_id": device, "wave": wave}
            for execution, device, wave in members
        )
        insert_alike(self._session, _EXECUTIONS, same, rows)

    def get(self, rollout_id: str, *, lock: bool = False) -> RolloutRecord | None:
        return self._rollouts.get(rollout_id, lock=lock)

    def save(self, record: RolloutRecord) -> None:
        self._rollouts.save(record, record.id)

    def page(self, before: str | None, limit: int) -> Sequence[RolloutRecord]:
        return self._rollouts.newest(RolloutRow.id, before, limit, RolloutRow.planned.is_(True))

    def running(self) -> Sequence[str]:
        query = select(RolloutRow.id).where(RolloutRow.state == RolloutState.RUNNING.value)
        return list(self._session.scalars(query.order_by(RolloutRow.id)))

    def of_version(
        self, model: str, version: int, states: Collection[RolloutState]
    ) -> Sequence[RolloutRecord]:
        query = select(RolloutRow).where(
            RolloutRow.model == model,
            RolloutRow.version == version,
            RolloutRow.state.in_([state.value for state in states]),
            RolloutRow.planned.is_(True),
        )
        return self._rollouts.all(query.order_by(RolloutRow.id))

    def unplanned(self) -> Sequence[str]:
        query = select(RolloutRow.id).where(RolloutRow.planned.is_(False))
        return list(self._session.scalars(query.order_by(RolloutRow.id)))

    def drafts(self, before: datetime) -> Sequence[RolloutRecord]:
        query = select(RolloutRow).where(
            RolloutRow.state == RolloutState.DRAFT.value,
            RolloutRow.created_at < before,
            RolloutRow.planned.is_(True),
        )
        return self._rollouts.all(query.order_by(RolloutRow.id))

    def discard(self, rollout_id: str, limit: int) -> bool:
        unplanned = RolloutRow.planned.is_(False)
        if not self._session.scalars(
            select(RolloutRow.id).where(RolloutRow.id == rollout_id, unplanned)
        ).all():
            return False
        its = ExecutionRow.rollout_id == rollout_id
        some = select(ExecutionRow.id).where(its).limit(limit)
        gone = delete(ExecutionRow).where(ExecutionRow.id.in_(some)).returning(ExecutionRow.id)
        if len(self._session.scalars(gone).all()) == limit:
            return True
        self._session.execute(delete(WaveRow).where(WaveRow.rollout_id == rollout_id))
        self._session.execute(delete(RolloutRow).where(RolloutRow.id == rollout_id, unplanned))
        return False

    def waves(self, rollout_id: str) -> Sequence[WaveRecord]:
        query = select(WaveRow).where(WaveRow.rollout_id == rollout_id).order_by(WaveRow.idx)
        return self._waves.all(query)

    def wave_counts(self, rollouts: Collection[str]) -> Mapping[str, int]:
        of = WaveRow.rollout_id
        query = select(of, func.count()).where(of.in_(rollouts)).group_by(of)
        return {row[0]: row[1] for row in self._session.execute(query)}

    def outcomes(self, rollouts: Collection[str]) -> Mapping[str, Mapping[str, int]]:
        e = ExecutionRow
        its = e.rollout_id.in_(rollouts)
        # The first by its index alone; the others look at few.
        ends = select(e.rollout_id, e.state, func.count()).where(its)
        undone = select(e.rollout_id, e.late, func.count()).where(
            its, e.late.is_not(None), e.state == ExecState.SUCCEEDED.value
        )
        never = select(e.rollout_id, e.state, func.count()).where(its, passed_over())
        found: dict[str, Counter[str]] = {one: Counter() for one in rollouts}
        for rollout_id, state, n in self._session.execute(ends.group_by(e.rollout_id, e.state)):
            found[rollout_id][state] += n
        for rollout_id, late, n in self._session.execute(undone.group_by(e.rollout_id, e.late)):
            found[rollout_id].update({str(late): n, ExecState.SUCCEEDED.value: -n})
        for rollout_id, state, n in self._session.execute(never.group_by(e.rollout_id, e.state)):
            found[rollout_id].update({NOT_OFFERED: n, state: -n})
        return {one: dict(+counts) for one, counts in found.items()}

    def straggling(self, rollouts: Collection[str]) -> Mapping[str, tuple[datetime, int]]:
        its = (ExecutionRow.rollout_id == WaveRow.rollout_id, ExecutionRow.wave == WaveRow.idx)
        query = (
            select(WaveRow.rollout_id, func.min(WaveRow.entered_at), func.count())
            .join(ExecutionRow, and_(*its))
            .where(
                WaveRow.rollout_id.in_(rollouts),
                WaveRow.stragglers.is_(True),
                WaveRow.state == WaveState.RUNNING.value,
                ExecutionRow.state == ExecState.SCHEDULED.value,
            )
            .group_by(WaveRow.rollout_id)
        )
        return {row[0]: (row[1], row[2]) for row in self._session.execute(query)}

    def save_wave(self, record: WaveRecord) -> None:
        row = self._session.get(WaveRow, (record.rollout_id, record.idx))
        if row is None:
            self._session.add(to_row(WaveRow, record))
        else:
            fill(row, record)
        self._session.flush()

    def execution(self, execution_id: str, *, lock: bool = False) -> ExecutionRecord | None:
        return self._executions.get(execution_id, lock=lock)

    def save_execution(self, record: ExecutionRecord) -> None:
        self._executions.save(record, record.id)

    def of_device(self, device_id: str, states: Iterable[ExecState]) -> Sequence[ExecutionRecord]:
        query = select(ExecutionRow).where(
            ExecutionRow.device_id == device_id,
            ExecutionRow.state.in_([state.value for state in states]),
        )
        return self._executions.all(query.order_by(ExecutionRow.sequence.desc()))

    def unpublish(self, states: Iterable[ExecState]) -> None:
        names = [state.value for state in states]
        where = (ExecutionRow.state.in_(names), ExecutionRow.published.is_(True))
        self._session.execute(update(ExecutionRow).where(*where).values(published=False))

    def latest_of_device(self, device_id: str) -> ExecutionRecord | None:
        query = (
            select(ExecutionRow)
            .where(ExecutionRow.device_id == device_id, ExecutionRow.sequence > 0)
            .order_by(ExecutionRow.sequence.desc())
            .limit(1)
        )
        return next(iter(self._executions.all(query)), None)
