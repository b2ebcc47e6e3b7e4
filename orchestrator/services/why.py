"""Loads what ``domain.why`` needs to explain a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from orchestrator.domain.reconcile import strange
from orchestrator.domain.why import explain
from orchestrator.domain.why_facts import DeviceNow, ModelNow, Part, Plan, Turn, Wave
from orchestrator.services import inventory, overlap, pacing
from orchestrator.services.facts import facts_of
from orchestrator.services.fleet import found
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import DeviceRecord, ExecutionRecord, RolloutRecord
from schemas.device import Presence
from schemas.device_why import DeviceWhy
from schemas.rollout import ExecState, RolloutState
from schemas.selector import Node, parse

MAX_PARTS = 200
"""Executions of a device that are looked back on, and rollouts without it."""

MAX_MODELS = 64


class WhyService:
    """Explains devices.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    def explain(self, device_id: str) -> DeviceWhy:
        """Why a device serves what it serves, and not something newer.

        Raises:
            NotFound: there is no such device.
        """
        now = self._clock()
        with self._uow.read() as tx:
            device = _Loader(tx, found(tx, device_id), now).load()
        return explain(device, now)


class _Loader:
    """Gathers what is known of one device."""

    def __init__(self, tx: Transaction, record: DeviceRecord, now: datetime) -> None:
        self._tx = tx
        self._record = record
        self._now = now
        self._experiments: Mapping[str, str] = {}

    def load(self) -> DeviceNow:
        record = self._record
        standing: dict[str, set[int]] = {}
        for one in self._tx.models.standing():
            standing.setdefault(one.model, set()).add(one.version)
        newest = {model: max(versions) for model, versions in standing.items()}
        pairs = self._tx.past.parts(record.id, MAX_PARTS)
        mine = {one.model for one in record.active} | {rollout.model for _, rollout in pairs}
        versions = {model: newest[model] for model in sorted(mine & set(newest))[:MAX_MODELS]}
        others = self._tx.past.others(record.id, versions, MAX_PARTS)
        ids = {one.id for one in others} | {one.id for _, one in pairs}
        waves = self._tx.past.waves(ids)
        self._experiments = self._tx.experiments.of_rollouts(ids) if ids else {}
        parts = [self._part(one, its, self._plan(its, waves)) for one, its in pairs]
        plans = [self._plan(one, waves) for one in others]
        models = sorted(mine | {plan.spec.model for plan in plans})[:MAX_MODELS]
        return DeviceNow(
            facts=facts_of(record, self._now),
            state=record.state,
            online=record.presence is Presence.ONLINE,
            last_seen_at=record.last_seen_at,
            revoked_at=record.revoked_at,
            revoke_reason=record.revoke_reason,
            models=tuple(self._models(models, parts, plans, standing)),
        )

    def _models(
        self,
        models: Iterable[str],
        parts: list[Part],
        plans: list[Plan],
        standing: Mapping[str, set[int]],
    ) -> Iterable[ModelNow]:
        record = self._record
        active = {one.model: one for one in record.active}
        since = self._tx.devices.serving_since([record.id]).get(record.id, {})
        given = inventory.given(self._tx, [record.id])[record.id]
        drifted = {one.model for one in strange(record.active, given)}
        for name in models:
            its = tuple(part for part in parts if part.plan.spec.model == name)
            without = tuple(plan for plan in plans if plan.spec.model == name)
            spoken = {plan.version for plan in without} | {part.plan.version for part in its}
            spoken |= {active[name].version} if name in active else set()
            stands = standing.get(name, set())
            yield ModelNow(
                model=name,
                active=active.get(name),
                since=since.get(name),
                strange=name in drifted,
                newest=max(stands, default=None),
                revoked=self._revoked(name, spoken - stands),
                parts=its,
                plans=without,
            )

    def _revoked(self, model: str, versions: set[int]) -> dict[int, str]:
        records = ((version, self._tx.models.get(model, version)) for version in sorted(versions))
        return {
            version: record.revoked_reason or ""
            for version, record in records
            if record is not None and record.revoked
        }

    def _plan(self, record: RolloutRecord, waves: Mapping[str, tuple[Wave, ...]]) -> Plan:
        return Plan(
            id=record.id,
            spec=record.spec,
            state=record.state,
            pause_reason=record.pause_reason,
            reason=record.reason,
            rollback_of=record.rollback_of,
            takes_back=record.takes_back,
            created_at=record.created_at,
            started_at=record.started_at,
            waves=waves.get(record.id, ()),
            fleet=_fleet(record),
            unreadable=bool(record.unreadable),
            experiment=self._experiments.get(record.id),
        )

    def _turn(self, record: ExecutionRecord, rollout: RolloutRecord) -> Turn | None:
        """How the pace of a rollout stands, where it may hold the device back."""
        waits = record.state is ExecState.SCHEDULED and rollout.state is RolloutState.RUNNING
        if not (waits and pacing.limits(rollout.spec.pace)):
            return None
        counted = pacing.counts(self._tx, rollout, record.wave)
        found = pacing.standing(self._tx, rollout, counted, self._now)
        return Turn(
            per_minute=found.per_minute,
            at_work=found.facts.at_work,
            room=found.room,
            waiting=counted.get(record.wave, {}).get(ExecState.SCHEDULED, 1),
        )

    def _part(self, record: ExecutionRecord, rollout: RolloutRecord, plan: Plan) -> Part:
        holder = kept = None
        if record.state is ExecState.SCHEDULED and plan.state is RolloutState.RUNNING:
            holders = self._tx.executions.holders(plan.id, [record.device_id])
            holder = holders.get(record.device_id)
            kept = overlap.kept(self._tx, rollout, [record.device_id]).get(record.device_id)
        total = record.bytes_total
        return Part(
            plan=plan,
            wave=record.wave,
            state=record.state,
            attempt=record.attempt,
            cause=record.cause,
            detail=record.detail,
            late=record.late,
            due_at=record.due_at,
            waits_until=record.waits_until,
            holder=holder,
            kept=kept,
            turn=self._turn(record, rollout),
            share=(record.bytes_done or 0) / total if total else None,
            at=record.updated_at,
        )


def _fleet(record: RolloutRecord) -> Node | None:
    if record.fleet_where is None or record.unreadable:
        return None
    return parse(record.fleet_where)
