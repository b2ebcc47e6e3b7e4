"""What is known of many executions at once: counts, progress, who waits, what was served."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, Float, Text, and_, case, cast, func, or_, select
from sqlalchemy.orm import Session

from orchestrator.adapters.device_repository import batched
from orchestrator.adapters.execution_conditions import (
    IS_ONLINE,
    conditions,
    engaged,
    model_of,
    one_of_those_there,
    passed_over,
    works_elsewhere,
)
from orchestrator.adapters.repository import Records
from orchestrator.adapters.served_repository import SqlServed
from orchestrator.adapters.tables import (
    DeviceModelRow,
    DeviceRow,
    ExecutionRow,
    RolloutRow,
)
from orchestrator.domain.snapshot import Due
from orchestrator.domain.waiting import WAITS
from orchestrator.services.records import (
    Alike,
    Among,
    ExecutionRecord,
    Given,
    RolloutRecord,
    Waiting,
)
from schemas.device import ActiveModel, DeviceState, Hardware
from schemas.rollout import ExecState
from schemas.rollout_view import Progress

_PORTION = 500
_USABLE = DeviceRow.state == DeviceState.ACTIVE.value
_SERVING = (ExecState.SUCCEEDED.value, ExecState.ALREADY_INSTALLED.value)
_HARDWARE: TypeAdapter[Hardware | None] = TypeAdapter(Hardware | None)


def _sum(of: Any) -> ColumnElement[float]:
    """As a real number: SQLite refuses a sum of whole ones beyond 64 bits, and all with it."""
    return func.coalesce(func.sum(cast(of, Float(53))), 0)


def _waiting() -> ColumnElement[int]:
    """How many wait for a time that their device said, or, without a timer, for a word."""
    e = ExecutionRow
    told = or_(e.due_at.is_(None), e.waits_until.is_not(None))
    where = and_(e.state.in_(sorted(WAITS)), e.proceed.is_(False), told)
    return func.coalesce(func.sum(case((where, 1), else_=0)), 0)


def _passed_over() -> ColumnElement[int]:
    return func.coalesce(func.sum(case((passed_over(), 1), else_=0)), 0)


class SqlExecutionCounts(SqlServed):
    """The half of ``services.ports.Executions`` that only looks."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._records = Records(session, ExecutionRow, ExecutionRecord)

    def count(self, among: Among) -> int:
        query = select(func.count()).select_from(ExecutionRow)
        return self._session.scalar(query.where(*conditions(ExecutionRow, among))) or 0

    def by_wave(self, among: Among) -> Mapping[int, int]:
        query = (
            select(ExecutionRow.wave, func.count())
            .where(*conditions(ExecutionRow, among))
            .group_by(ExecutionRow.wave)
        )
        return dict(self._session.execute(query).all())

    def counts(
        self, rollout_id: str, wave: int | None = None
    ) -> Mapping[int, Mapping[ExecState, int]]:
        query = (
            select(ExecutionRow.wave, ExecutionRow.state, func.count())
            .where(*conditions(ExecutionRow, Among(rollout_id=rollout_id, wave=wave)))
            .group_by(ExecutionRow.wave, ExecutionRow.state)
        )
        found: dict[int, dict[ExecState, int]] = defaultdict(dict)
        for index, state, n in self._session.execute(query):
            found[index][ExecState(state)] = n
        return found

    def classes(self, rollout_id: str) -> Mapping[int, Mapping[str, int]]:
        query = (
            select(ExecutionRow.wave, DeviceRow.device_class, func.count())
            .join(DeviceRow, DeviceRow.id == ExecutionRow.device_id)
            .where(ExecutionRow.rollout_id == rollout_id)
            .group_by(ExecutionRow.wave, DeviceRow.device_class)
        )
        found: dict[int, dict[str, int]] = defaultdict(dict)
        for index, name, n in self._session.execute(query):
            found[index][name] = int(n)
        return found

    def progress(self, rollout_id: str) -> Mapping[int, Progress]:
        columns = (
            ExecutionRow.bytes_done,
            ExecutionRow.bytes_total,
            ExecutionRow.bytes_fetched,
            ExecutionRow.bytes_earlier,
        )
        sums = [_sum(column) for column in columns]
        query = (
            select(
                ExecutionRow.wave,
                ExecutionRow.state,
                func.count(),
                _waiting(),
                _passed_over(),
                *sums,
            )
            .where(ExecutionRow.rollout_id == rollout_id)
            .group_by(ExecutionRow.wave, ExecutionRow.state)
        )
        found: dict[int, Progress] = {}
        for index, state, n, waiting, over, *more in self._session.execute(query):
            before = found.get(index, Progress())
            done, total, now, earlier = (int(value) for value in more)
            found[index] = Progress(
                states=before.states | {ExecState(state): n},
                bytes_done=before.bytes_done + done,
                bytes_total=before.bytes_total + total,
                bytes_fetched=before.bytes_fetched + now + earlier,
                waiting=before.waiting + int(waiting),
                not_offered=before.not_offered + int(over),
            )
        return found

    def page(self, among: Among, after: str | None, limit: int) -> Sequence[ExecutionRecord]:
        query = select(ExecutionRow).where(*conditions(ExecutionRow, among))
        if after is not None:
            query = query.where(ExecutionRow.id > after)
        return self._records.all(query.order_by(ExecutionRow.id).limit(limit))

    def of_devices(self, rollout_id: str, devices: Iterable[str]) -> Mapping[str, ExecState]:
        query = select(ExecutionRow.device_id, ExecutionRow.state).where(
            *conditions(ExecutionRow, Among(rollout_id=rollout_id, devices=tuple(devices)))
        )
        return {device: ExecState(state) for device, state in self._session.execute(query)}

    def due(self, rollout_id: str, wave: int, now: datetime) -> Mapping[Due, int]:
        query = (
            select(ExecutionRow.state, IS_ONLINE, func.count())
            .join(DeviceRow, DeviceRow.id == ExecutionRow.device_id)
            .where(
                *conditions(ExecutionRow, Among(rollout_id=rollout_id, wave=wave, due_by=now)),
                ExecutionRow.state != ExecState.SCHEDULED.value,
            )
            .group_by(ExecutionRow.state, IS_ONLINE)
        )
        found = self._session.execute(query)
        return {Due(ExecState(state), bool(online)): n for state, online, n in found}

    def offered(self, rollout_id: str, since: datetime, now: datetime) -> tuple[int, int]:
        at = ExecutionRow.offered_at
        ahead = func.coalesce(func.sum(case((at > now, 1), else_=0)), 0)
        where = (ExecutionRow.rollout_id == rollout_id, at > since)
        n, to_come = self._session.execute(select(func.count(), ahead).where(*where)).one()
        return int(n), int(to_come)

    def later(self, rollout_id: str, wave: int, now: datetime) -> int:
        waiting = frozenset({ExecState.SCHEDULED})
        among = Among(rollout_id=rollout_id, wave=wave, states=waiting)
        query = select(func.count()).select_from(ExecutionRow)
        where = (*conditions(ExecutionRow, among), ExecutionRow.due_at > now)
        return self._session.scalar(query.where(*where)) or 0

    def waiting(self, rollout_id: str, wave: int, now: datetime, limit: int) -> Sequence[Waiting]:
        among = Among(rollout_id=rollout_id, wave=wave, states=frozenset({ExecState.SCHEDULED}))
        query = (
            select(
                ExecutionRow.id,
                ExecutionRow.device_id,
                DeviceRow.device_class,
                cast(DeviceRow.hardware, Text),
                *_SERVED,
            )
            .join(DeviceRow, DeviceRow.id == ExecutionRow.device_id)
            .outerjoin(DeviceModelRow, _serves_it(rollout_id))
            .where(
                *conditions(ExecutionRow, among),
                or_(ExecutionRow.due_at.is_(None), ExecutionRow.due_at <= now),
                _USABLE,
                one_of_those_there(ExecutionRow),
                ~works_elsewhere(ExecutionRow, rollout_id),
            )
            .limit(limit)
        )
        read = _Reader()
        return [
            Waiting(execution, device, name, read.hardware(hardware), read.active(*served))
            for execution, device, name, hardware, *served in self._session.execute(query)
        ]

    def alike(self, among: Among, limit: int) -> Sequence[Alike]:
        its = (DeviceRow.device_class, cast(DeviceRow.hardware, Text), *_SERVED)
        query = (
            select(func.count(), func.sum(case((IS_ONLINE, 0), else_=1)), *its)
            .select_from(ExecutionRow)
            .join(DeviceRow, DeviceRow.id == ExecutionRow.device_id)
            .outerjoin(DeviceModelRow, _serves_it(among.rollout_id))
            .where(*conditions(ExecutionRow, among))
            .group_by(*its)
            .order_by(func.count().desc(), *its)
            .limit(limit)
        )
        read = _Reader()
        return [
            Alike(name, read.hardware(hardware), read.active(*served), n, hardware, int(offline))
            for n, offline, name, hardware, *served in self._session.execute(query)
        ]

    def holders(self, rollout_id: str, devices: Collection[str]) -> Mapping[str, str]:
        found: dict[str, str] = {}
        columns = (ExecutionRow.device_id, ExecutionRow.rollout_id)
        for portion in batched(sorted(devices), _PORTION):
            where = (ExecutionRow.device_id.in_(portion), *engaged(ExecutionRow, rollout_id))
            found |= dict(self._session.execute(select(*columns).where(*where)).all())
        return found

    def last_given(self, rollout: RolloutRecord, devices: Collection[str]) -> Mapping[str, Given]:
        last = (
            select(ExecutionRow.device_id, func.max(ExecutionRow.sequence).label("sequence"))
            .join(RolloutRow, RolloutRow.id == ExecutionRow.rollout_id)
            .where(
                ExecutionRow.device_id.in_(devices),
                ExecutionRow.sequence > 0,
                RolloutRow.model == rollout.model,
            )
            .group_by(ExecutionRow.device_id)
            .subquery()
        )
        e = ExecutionRow
        query = (
            select(e.device_id, e.rollout_id, e.state, e.attempt, e.retryable)
            .join(
                last,
                (last.c.device_id == ExecutionRow.device_id)
                & (last.c.sequence == ExecutionRow.sequence),
            )
            .where(e.rollout_id != rollout.id)
        )
        return {
            device: Given(other, ExecState(state), attempt, bool(retryable))
            for device, other, state, attempt, retryable in self._session.execute(query)
        }


class _Reader:
    """Reads what devices are from JSON; the same text once."""

    def __init__(self) -> None:
        self._hardware: dict[str, Hardware | None] = {}

    def hardware(self, text: str | None) -> Hardware | None:
        if text is None:
            return None
        if text not in self._hardware:
            self._hardware[text] = _HARDWARE.validate_python(json.loads(text))
        return self._hardware[text]

    def active(
        self, model: str | None, version: int | None, variant: str | None, sha256: str | None
    ) -> ActiveModel | None:
        if model is None or version is None or variant is None or sha256 is None:
            return None
        return ActiveModel(model=model, version=version, variant=variant, sha256=sha256)


_SERVED: tuple[Any, ...] = (
    DeviceModelRow.model,
    DeviceModelRow.version,
    DeviceModelRow.variant,
    DeviceModelRow.sha256,
)


def _serves_it(rollout_id: str) -> ColumnElement[bool]:
    """What a device serves of a rollout's model."""
    its = DeviceModelRow.device_id == DeviceRow.id
    return and_(its, DeviceModelRow.model == model_of(rollout_id))
