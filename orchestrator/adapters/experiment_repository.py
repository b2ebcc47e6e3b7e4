"""Experiments in SQL, and what telemetry knows of their devices."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import (
    DeviceHourRow,
    DeviceRow,
    ExecutionRow,
    ExperimentRow,
    WindowRow,
)
from orchestrator.domain import rollup
from orchestrator.domain.judging.figures import DeviceFigures
from orchestrator.domain.judging.sums import span_of
from orchestrator.domain.placing import AHEAD_MS
from orchestrator.domain.rollup import HOUR_MS, Kept, Sums
from orchestrator.services.ports.experiments import Head, Observed
from orchestrator.services.records import ExperimentRecord
from schemas.device import DeviceState
from schemas.experiment import ArmName, ExperimentState
from schemas.rollout import ExecState

DEVICES = 600
"""Of an arm, of which figures are read: those that were drawn first, so a random part."""

HOURS = 60_000
"""Hours of devices that are read of an arm; of more, every second, third, … hour."""

WINDOWS = 60_000
"""Of an arm, in its past and in the broken hour at its begin, each."""

_PORTION = 300
_KEPT = msgspec.msgpack.Decoder(Kept)
_SERVING = [ExecState.SUCCEEDED.value, ExecState.ALREADY_INSTALLED.value]


class SqlExperiments:
    """``services.ports.Experiments`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._experiments = Records(session, ExperimentRow, ExperimentRecord)

    def add(self, record: ExperimentRecord) -> None:
        self._experiments.add(record)

    def get(self, experiment_id: str) -> ExperimentRecord | None:
        return self._experiments.get(experiment_id)

    def save(self, record: ExperimentRecord) -> None:
        self._experiments.save(record, record.id)

    def page(self, before: str | None, limit: int) -> Sequence[ExperimentRecord]:
        return self._experiments.newest(ExperimentRow.id, before, limit)

    def in_state(
        self, states: Collection[ExperimentState], model: str | None = None
    ) -> Sequence[ExperimentRecord]:
        query = select(ExperimentRow).where(ExperimentRow.state.in_([s.value for s in states]))
        if model is not None:
            query = query.where(ExperimentRow.model == model)
        return self._experiments.all(query.order_by(ExperimentRow.id))

    def of_rollouts(self, rollouts: Collection[str]) -> Mapping[str, str]:
        e = ExperimentRow
        its = (e.rollout_a, e.rollout_b, e.kept_rollout)
        query = select(e.id, *its).where(or_(*(one.in_(rollouts) for one in its)))
        rows = self._session.execute(query)
        return {one: row[0] for row in rows for one in row[1:] if one and one in rollouts}

    def members(self, rollout_id: str) -> frozenset[str]:
        query = select(ExecutionRow.device_id).where(ExecutionRow.rollout_id == rollout_id)
        return frozenset(self._session.scalars(query))

    def head(self, rollout_id: str) -> Head:
        query = (
            select(ExecutionRow.state, func.count())
            .where(ExecutionRow.rollout_id == rollout_id)
            .group_by(ExecutionRow.state)
        )
        counts = {row[0]: row[1] for row in self._session.execute(query)}
        return Head(sum(counts.values()), sum(counts.get(state, 0) for state in _SERVING))

    def observed(self, record: ExperimentRecord, now: datetime) -> Observed:
        arms: dict[ArmName, Sequence[DeviceFigures]] = {}
        notes: set[str] = set()
        sides: tuple[tuple[ArmName, str, int], ...] = (
            ("a", record.rollout_a, record.spec.a),
            ("b", record.rollout_b, record.spec.b),
        )
        for name, rollout, version in sides:
            devices = self._serving(rollout)
            if len(devices) == DEVICES:
                notes.add(f"of each arm at most {DEVICES} devices are looked at, drawn by chance")
            arms[name] = self._figures(record, version, devices, now, notes)
        return Observed(arms, tuple(sorted(notes)))

    def _serving(self, rollout_id: str) -> dict[str, str]:
        """Devices that serve an arm's version, with their classes."""
        query = (
            select(ExecutionRow.device_id, DeviceRow.device_class)
            .join(DeviceRow, DeviceRow.id == ExecutionRow.device_id)
            .where(
                ExecutionRow.rollout_id == rollout_id,
                ExecutionRow.state.in_(_SERVING),
                DeviceRow.state == DeviceState.ACTIVE.value,
                DeviceRow.drifted_at.is_(None),
            )
            # Their ids are counted up in the order in which the plan drew the devices.
            .order_by(ExecutionRow.id)
            .limit(DEVICES)
        )
        return {row[0]: row[1] for row in self._session.execute(query)}

    def _figures(
        self,
        record: ExperimentRecord,
        version: int,
        devices: Mapping[str, str],
        now: datetime,
        notes: set[str],
    ) -> Sequence[DeviceFigures]:
        begin = _ms(record.created_at)
        past = begin - round(record.spec.baseline_seconds * 1000)
        full = begin // HOUR_MS + 1
        before: dict[str, Sums] = {}
        after: dict[str, Sums] = {}
        for names in _portions(list(devices)):
            self._windows(before, record.model, None, names, past, begin)
            self._windows(after, record.model, version, names, begin, full * HOUR_MS)
        hours = range(full, (_ms(now) + AHEAD_MS) // HOUR_MS + 1)
        step = max(1, math.ceil(len(hours) * len(devices) / HOURS))
        if step > 1:
            notes.add(f"of its hours one in {step} is looked at")
        for hour in hours[::step]:
            self._hour(after, record.model, version, devices, hour)
        return [
            DeviceFigures(device, name, span_of(before.get(device)), span_of(after.get(device)))
            for device, name in devices.items()
        ]

    def _windows(
        self,
        into: dict[str, Sums],
        model: str,
        version: int | None,
        devices: Sequence[str],
        begin: int,
        end: int,
    ) -> None:
        w = WindowRow
        query = select(w.device_id, w.body).where(
            w.device_id.in_(devices),
            w.start_ms >= begin,
            w.start_ms < end,
            w.model == model,
            w.role == "active",
        )
        if version is not None:
            query = query.where(w.version == version)
        most = WINDOWS * len(devices) // DEVICES
        for device, body in self._session.execute(
            query.order_by(w.start_ms.desc()).limit(most)
        ).yield_per(1000):
            into.setdefault(device, Sums()).add(_KEPT.decode(body))

    def _hour(
        self,
        into: dict[str, Sums],
        model: str,
        version: int,
        devices: Mapping[str, str],
        hour: int,
    ) -> None:
        h = DeviceHourRow
        for names in _portions(list(devices)):
            query = select(h.device, h.body).where(
                h.model == model,
                h.version == version,
                h.hour == hour,
                h.device.in_(names),
                h.role == "active",
            )
            for device, body in self._session.execute(query):
                into.setdefault(device, Sums()).merge(rollup.decode(body))


def _portions(devices: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(devices), _PORTION):
        yield devices[start : start + _PORTION]


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
