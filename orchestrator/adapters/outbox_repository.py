"""Executions by sets in SQL: what is to be sent, and what a batch of messages is about."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, and_, func, or_, select, update
from sqlalchemy.orm import Session

from orchestrator.adapters.device_repository import batched
from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import DeviceRow, ExecutionRow, ModelVersionRow, RolloutRow
from orchestrator.services.records import ExecutionRecord, GivenRecord, Outgoing, Pending
from schemas.rollout import ExecState, RolloutState

_PORTION = 500
_HISTORY = 50
"""Of a device and model, so many executions back is looked at: more than it can have a file of."""
_UNSENT = and_(ExecutionRow.sequence > 0, ExecutionRow.published.is_(False))
_THERE = ExecState.ALREADY_INSTALLED.value


class SqlOutbox:
    """``services.ports.Outbox`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._executions = Records(session, ExecutionRow, ExecutionRecord)

    def pending(self) -> Sequence[Pending]:
        query = (
            select(ExecutionRow.rollout_id, ExecutionRow.state, func.count())
            .where(_UNSENT)
            .group_by(ExecutionRow.rollout_id, ExecutionRow.state)
            .order_by(ExecutionRow.rollout_id, ExecutionRow.state)
        )
        return [
            Pending(rollout_id=rollout, state=ExecState(state), count=count)
            for rollout, state, count in self._session.execute(query)
        ]

    def waiting(
        self, group: Pending, limit: int, *, after: str | None = None
    ) -> Sequence[Outgoing]:
        query = (
            _outgoing()
            .where(
                _UNSENT,
                ExecutionRow.rollout_id == group.rollout_id,
                ExecutionRow.state == group.state.value,
            )
            .order_by(ExecutionRow.id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(ExecutionRow.id > after)
        return [_to_outgoing(row) for row in self._session.execute(query)]

    def outgoing(self, ids: Collection[str]) -> Mapping[str, Outgoing]:
        found: dict[str, Outgoing] = {}
        for portion in batched(sorted(ids), _PORTION):
            rows = self._session.execute(_outgoing().where(ExecutionRow.id.in_(portion)))
            found |= {row.id: _to_outgoing(row) for row in rows}
        return found

    def publish(self, ids: Collection[str], due_at: datetime | None = None) -> None:
        values: dict[str, Any] = {"published": True}
        if due_at is not None:
            values["due_at"] = due_at
        for portion in batched(sorted(ids), _PORTION):
            sent = update(ExecutionRow).where(ExecutionRow.id.in_(portion)).values(**values)
            self._session.execute(sent)

    def executions(self, ids: Collection[str]) -> Mapping[str, ExecutionRecord]:
        found: dict[str, ExecutionRecord] = {}
        for portion in batched(sorted(ids), _PORTION):
            query = select(ExecutionRow).where(ExecutionRow.id.in_(portion))
            found |= {record.id: record for record in self._executions.all(query)}
        return found

    def newest(self, devices: Collection[str]) -> Mapping[str, ExecutionRecord]:
        found: dict[str, ExecutionRecord] = {}
        for portion in batched(sorted(devices), _PORTION):
            query = (
                select(ExecutionRow)
                .join(DeviceRow, DeviceRow.id == ExecutionRow.device_id)
                .where(
                    ExecutionRow.device_id.in_(portion),
                    ExecutionRow.sequence > 0,
                    ExecutionRow.sequence == DeviceRow.sequence,
                )
            )
            found |= {record.device_id: record for record in self._executions.all(query)}
        return found

    def given(self, devices: Collection[str]) -> Mapping[str, Sequence[GivenRecord]]:
        found: dict[str, list[GivenRecord]] = {}
        for portion in batched(sorted(devices), _PORTION):
            for row in self._session.execute(_given(portion)):
                found.setdefault(row.device_id, []).append(_to_given(row))
        return found

    def change(self, pairs: Iterable[tuple[ExecutionRecord, ExecutionRecord]]) -> None:
        self._executions.change(pairs)


_COLUMNS: tuple[Any, ...] = (
    ExecutionRow.id,
    ExecutionRow.rollout_id,
    ExecutionRow.device_id,
    DeviceRow.device_class,
    ExecutionRow.attempt,
    ExecutionRow.state,
    ExecutionRow.variant,
    ExecutionRow.sequence,
    (ExecutionRow.sequence == DeviceRow.sequence).label("newest"),
    ExecutionRow.published,
    ExecutionRow.offered_at,
    ExecutionRow.due_at,
    ExecutionRow.proceed,
    (RolloutRow.state == RolloutState.PAUSED.value).label("paused"),
)

_STATES = {state.value: state for state in ExecState}


def _outgoing() -> Select[Any]:
    return (
        select(*_COLUMNS)
        .join(DeviceRow, DeviceRow.id == ExecutionRow.device_id)
        .join(RolloutRow, RolloutRow.id == ExecutionRow.rollout_id)
    )


def _to_outgoing(row: Row[Any]) -> Outgoing:
    # By place, in the order of _COLUMNS: by name each would be looked up for each row.
    first: tuple[Any, ...] = tuple(row[:7])
    rest: tuple[Any, ...] = tuple(row[7:])
    execution, rollout, device, device_class, attempt, state, variant = first
    sequence, newest, published, offered_at, due_at, proceed, paused = rest
    return Outgoing(
        id=execution,
        rollout_id=rollout,
        device_id=device,
        device_class=device_class,
        attempt=attempt,
        state=_STATES[state],
        variant=variant,
        sequence=sequence,
        newest=bool(newest),
        published=published,
        offered_at=offered_at,
        due_at=due_at,
        paused=bool(paused),
        proceed=proceed,
    )


def _given(devices: Sequence[str]) -> Select[Any]:
    at = func.coalesce(ExecutionRow.offered_at, ExecutionRow.updated_at)
    rank = func.row_number().over(
        partition_by=(ExecutionRow.device_id, RolloutRow.model),
        order_by=(at.desc(), ExecutionRow.id.desc()),
    )
    ranked = (
        select(
            ExecutionRow.id,
            ExecutionRow.device_id,
            RolloutRow.model,
            RolloutRow.version,
            ExecutionRow.variant,
            ExecutionRow.state,
            ExecutionRow.late,
            at.label("at"),
            rank.label("rank"),
        )
        .join(RolloutRow, RolloutRow.id == ExecutionRow.rollout_id)
        .where(
            ExecutionRow.device_id.in_(devices),
            or_(ExecutionRow.sequence > 0, ExecutionRow.state == _THERE),
        )
        .subquery()
    )
    return (
        select(ranked, ModelVersionRow.manifest_sha256)
        .join(
            ModelVersionRow,
            and_(
                ModelVersionRow.model == ranked.c.model,
                ModelVersionRow.version == ranked.c.version,
            ),
        )
        .where(ranked.c.rank <= _HISTORY)
        .order_by(ranked.c.device_id, ranked.c.at.desc(), ranked.c.id.desc())
    )


def _to_given(row: Row[Any]) -> GivenRecord:
    return GivenRecord(
        execution=row.id,
        device_id=row.device_id,
        model=row.model,
        version=row.version,
        variant=row.variant,
        manifest_sha256=row.manifest_sha256,
        state=ExecState(row.state),
        late=None if row.late is None else ExecState(row.late),
        at=row.at,
    )
