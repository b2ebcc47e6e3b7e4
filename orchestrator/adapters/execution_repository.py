"""Moving many executions with one statement.

Each move does what ``domain.execution.step`` does to a single one; the contract tests hold the
two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, case, func, literal, select, update
from sqlalchemy.orm import Session, aliased

from orchestrator.adapters.execution_conditions import (
    conditions,
    model_of,
    waits_elsewhere,
)
from orchestrator.adapters.execution_counts_repository import SqlExecutionCounts
from orchestrator.adapters.tables import DeviceModelRow, DeviceRow, ExecutionRow, RolloutRow
from orchestrator.domain.execution import AT_WORK, IN_FLIGHT, RETRIED_BY_HAND
from orchestrator.domain.waiting import WAITS
from orchestrator.services.records import Among, Moved
from schemas.rollout import EXEC_TERMINAL, ExecState, RolloutState

_OPEN = sorted(state.value for state in frozenset(ExecState) - EXEC_TERMINAL)
_AT_WORK = sorted(state.value for state in AT_WORK)
_IN_FLIGHT = sorted(state.value for state in IN_FLIGHT)
_WAITS = sorted(state.value for state in WAITS)
_BY_HAND = sorted(state.value for state in RETRIED_BY_HAND)
_MOVED = (ExecutionRow.id, ExecutionRow.device_id, ExecutionRow.rollout_id, ExecutionRow.wave)


class SqlExecutions(SqlExecutionCounts):
    """``services.ports.Executions`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session

    def end(
        self, among: Among, state: ExecState, detail: str, now: datetime, limit: int | None = None
    ) -> Sequence[Moved]:
        where = [*conditions(ExecutionRow, among), ExecutionRow.state.in_(_OPEN)]
        return self._end(where, state, detail, now, _subset(among, _OPEN, limit))

    def supersede(self, rollout_id: str, devices: Sequence[str], now: datetime) -> Sequence[Moved]:
        where = [
            ExecutionRow.device_id.in_(devices),
            ExecutionRow.rollout_id != rollout_id,
            ExecutionRow.rollout_id.in_(_of_model(rollout_id)),
            ExecutionRow.state.in_(_IN_FLIGHT),
        ]
        detail = f"superseded by {rollout_id}"
        return self._end(where, ExecState.SUPERSEDED, detail, now, None, tell=True)

    def give_way(self, rollout_id: str, devices: Sequence[str], now: datetime) -> Sequence[Moved]:
        paused = select(RolloutRow.id).where(
            RolloutRow.model != model_of(rollout_id),
            RolloutRow.state == RolloutState.PAUSED.value,
        )
        where = [
            ExecutionRow.device_id.in_(devices),
            ExecutionRow.state == ExecState.OFFERED.value,
            ExecutionRow.published.is_(False),
            ExecutionRow.rollout_id.in_(paused),
        ]
        values = {"state": ExecState.SCHEDULED.value, "due_at": None}
        return self._move(where, values, now)

    def set_aside(
        self, rollout_id: str, devices: Sequence[str], detail: str, now: datetime
    ) -> Sequence[Moved]:
        where = [
            ExecutionRow.device_id.in_(devices),
            *waits_elsewhere(ExecutionRow, rollout_id),
        ]
        return self._move(where, _NEXT_ATTEMPT | {"due_at": None, "detail": detail}, now)

    def withdraw(self, among: Among, now: datetime, limit: int) -> Sequence[Moved]:
        offered = [ExecState.OFFERED.value]
        values = {"state": ExecState.SCHEDULED.value, "published": False, "due_at": None}
        return self._move([_subset(among, offered, limit)], values, now)

    def vanish(self, among: Among, due_at: datetime, now: datetime, limit: int) -> Sequence[Moved]:
        values = {
            "state": ExecState.UNKNOWN.value,
            "previous": ExecutionRow.state,
            "due_at": due_at,
        }
        return self._move([_subset(among, _AT_WORK, limit)], values, now)

    def retry(
        self, among: Among, due_at: Mapping[int, datetime], now: datetime, limit: int
    ) -> Sequence[Moved]:
        kind = ExecutionRow.due_at.type
        times = [(ExecutionRow.attempt == n, literal(at, kind)) for n, at in due_at.items()]
        failed = [ExecState.FAILED.value]
        where = [_subset(among, failed, limit), ExecutionRow.retryable.is_(True)]
        return self._move(where, _NEXT_ATTEMPT | {"due_at": case(*times)}, now)

    def retry_by_hand(
        self, among: Among, now: datetime, *, wave: int | None = None, limit: int | None = None
    ) -> Sequence[Moved]:
        values = _NEXT_ATTEMPT | {"due_at": None}
        if wave is not None:
            values = values | {"wave": wave}
        if limit is not None:
            return self._move([_subset(among, _BY_HAND, limit)], values, now)
        where = [*conditions(ExecutionRow, among), ExecutionRow.state.in_(_BY_HAND)]
        return self._move(where, values, now, tell=False)

    def offer(
        self, ids: Sequence[str], variant: str, now: datetime, due_at: datetime
    ) -> Sequence[Moved]:
        where = [ExecutionRow.id.in_(ids), ExecutionRow.state == ExecState.SCHEDULED.value]
        devices = select(ExecutionRow.device_id).where(*where)
        self._session.execute(
            update(DeviceRow)
            .where(DeviceRow.id.in_(devices))
            .values(sequence=DeviceRow.sequence + 1)
            .execution_options(synchronize_session=False)
        )
        sequence = (
            select(DeviceRow.sequence)
            .where(DeviceRow.id == ExecutionRow.device_id)
            .correlate(ExecutionRow)
            .scalar_subquery()
        )
        values = {
            "state": ExecState.OFFERED.value,
            "variant": variant,
            "sequence": sequence,
            "published": False,
            "offered_at": now,
            "due_at": due_at,
            # What an attempt before left there is not what the device is to go back to.
            "before_version": _served_else(DeviceModelRow.version, ExecutionRow.before_version),
            "before_variant": _served_else(DeviceModelRow.variant, ExecutionRow.before_variant),
        }
        return self._move(where, values, now)

    def proceed(self, among: Among, now: datetime, limit: int) -> Sequence[Moved]:
        # Without a timer until the broker has the word: before, nobody can follow it.
        values = {"proceed": True, "published": False, "due_at": None}
        return self._move([_subset(among, _WAITS, limit)], values, now)

    def extend(self, due_at: Mapping[str, datetime]) -> None:
        if due_at:
            rows = [{"execution": execution, "due": at} for execution, at in due_at.items()]
            self._session.execute(_EXTEND, rows)

    def restamp(self, rollout_id: str, now: datetime) -> None:
        where = (ExecutionRow.rollout_id == rollout_id, ExecutionRow.offered_at > now)
        self._change(update(ExecutionRow).where(*where), {"offered_at": now})

    def put_in_wave(self, among: Among, wave: int) -> None:
        self._change(update(ExecutionRow).where(*conditions(ExecutionRow, among)), {"wave": wave})

    def _end(
        self,
        where: Sequence[Any],
        state: ExecState,
        detail: str,
        now: datetime,
        subset: Any,
        *,
        tell: bool = False,
    ) -> Sequence[Moved]:
        values = {
            "state": state.value,
            "previous": ExecutionRow.state,
            "detail": detail,
            "cause": None,
            "retryable": False,
            "due_at": None,
            "waits_until": None,
            # What was offered is to be withdrawn; of the rest no device ever heard.
            "published": case((ExecutionRow.sequence > 0, False), else_=ExecutionRow.published),
        }
        if subset is not None:
            return self._move([subset], values, now)
        return self._move(where, values, now, tell=tell)

    def _move(
        self, where: Sequence[Any], values: Mapping[str, Any], now: datetime, *, tell: bool = True
    ) -> Sequence[Moved]:
        statement = update(ExecutionRow).where(*where)
        values = {**values, "updated_at": now}
        if not tell:
            self._change(statement, values)
            return ()
        found = self._change(statement.returning(*_MOVED), values).all()
        return [Moved(*row) for row in found]

    def _change(self, statement: Any, values: Mapping[str, Any]) -> Any:
        result = self._session.execute(
            statement.values(**values).execution_options(synchronize_session=False)
        )
        # What this transaction has loaded of them is outdated.
        for row in list(self._session.identity_map.values()):
            if isinstance(row, ExecutionRow | DeviceRow):
                self._session.expire(row)
        return result


# Over the table, not the class: for so many rows the mapping costs more than the writing.
_EXTEND = (
    update(ExecutionRow.__table__)  # type: ignore[arg-type]
    .where(ExecutionRow.id == bindparam("execution"))
    .values(due_at=bindparam("due"))
)

_NEXT_ATTEMPT: dict[str, Any] = {
    "state": ExecState.SCHEDULED.value,
    "attempt": ExecutionRow.attempt + 1,
    "seq": -1,
    "previous": None,
    "late": None,
    "retryable": False,
    "waits_until": None,
    "proceed": False,
    "bytes_done": None,
    "bytes_total": None,
    "bytes_fetched": None,
    "bytes_earlier": ExecutionRow.bytes_earlier + func.coalesce(ExecutionRow.bytes_fetched, 0),
}


def _served_else(column: Any, kept: Any) -> Any:
    """What the device serves of the rollout's model in another version; else what was kept."""
    served = (
        select(column)
        .join(RolloutRow, RolloutRow.model == DeviceModelRow.model)
        .where(
            RolloutRow.id == ExecutionRow.rollout_id,
            DeviceModelRow.device_id == ExecutionRow.device_id,
            DeviceModelRow.version != RolloutRow.version,
        )
        .correlate(ExecutionRow)
        .scalar_subquery()
    )
    return func.coalesce(served, kept)


def _of_model(rollout_id: str) -> Any:
    """Rollouts of the same model as this one's."""
    return select(RolloutRow.id).where(RolloutRow.model == model_of(rollout_id))


def _subset(among: Among, states: Sequence[str], limit: int | None) -> Any:
    """So many of them; None without a limit."""
    if limit is None:
        return None
    e = aliased(ExecutionRow)
    ids = select(e.id).where(*conditions(e, among), e.state.in_(states)).limit(limit)
    return ExecutionRow.id.in_(ids)
