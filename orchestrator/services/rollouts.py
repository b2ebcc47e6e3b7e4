"""Rollouts as operators see them: plan, start, pause, resume, abort, look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.domain import execution as executions
from orchestrator.domain import rollout as machine
from orchestrator.domain.cohort import Candidate, plan_waves
from orchestrator.domain.rollout import Happened, RolloutEvent
from orchestrator.domain.timers import Timers, due_at, retry_at
from orchestrator.errors import IllegalTransition, Invalid, NotFound, NotSigned
from orchestrator.services import resolution
from orchestrator.services.ports import Clock, Signer, Transaction, UnitOfWork
from orchestrator.services.records import ExecutionRecord, RolloutRecord, WaveRecord
from orchestrator.services.versions import usable
from schemas.ids import new_id
from schemas.model import Manifest
from schemas.rollout import (
    EXEC_TERMINAL,
    ExecState,
    ExecutionView,
    PauseReason,
    RolloutSpec,
    RolloutState,
    RolloutView,
    VariantShare,
    WaveState,
    WaveView,
)


class RolloutService:
    """What the API does with rollouts."""

    def __init__(self, uow: UnitOfWork, clock: Clock, signer: Signer) -> None:
        self._uow = uow
        self._clock = clock
        self._signer = signer

    def plan(self, spec: RolloutSpec) -> RolloutView:
        """Freeze who is in which wave; nothing is sent before ``start``.

        Raises:
            NotFound, Revoked, Conflict: the version is not there, was revoked, or its
                files were collected.
            Invalid: it has no such variant, or no device is targeted.
        """
        now, rollout_id = self._clock(), new_id("rol")
        with self._uow() as tx:
            version = usable(tx, spec.model, spec.version)
            _check_variant(Manifest.model_validate_json(version.manifest), spec)
            devices = tx.devices.targeted(spec.device_class, spec.tags)
            if not devices:
                msg = "no active device matches the target of this rollout"
                raise Invalid(msg, hint="`argosy device ls` shows classes and tags")
            candidates = [Candidate(d.id, d.device_class) for d in devices]
            waves = plan_waves(candidates, spec.waves, rollout_id)
            record = RolloutRecord(
                id=rollout_id,
                spec=spec,
                model=spec.model,
                version=spec.version,
                state=RolloutState.DRAFT,
                created_at=now,
            )
            tx.rollouts.add(
                record,
                [
                    WaveRecord(
                        rollout_id=rollout_id, idx=i, state=WaveState.PENDING, entered_at=now
                    )
                    for i in range(len(waves))
                ],
                [
                    _scheduled(rollout_id, device, wave, now)
                    for wave, members in enumerate(waves)
                    for device in members
                ],
            )
            announce(tx, record, now)
            detail = {"version": f"{spec.model}@{spec.version}", "devices": len(devices)}
            tx.audit.add("rollout.create", record.id, detail)
            return view(tx, record)

    def get(self, rollout_id: str) -> RolloutView:
        """One rollout with its waves and executions."""
        with self._uow.read() as tx:
            return view(tx, found(tx, rollout_id))

    def page(self, before: str | None, limit: int) -> Sequence[RolloutView]:
        """Rollouts, newest first, without their waves."""
        with self._uow.read() as tx:
            return [_head(record) for record in tx.rollouts.page(before, limit)]

    def operate(self, rollout_id: str, kind: RolloutEvent) -> RolloutView:
        """Apply an operator's act.

        Raises:
            IllegalTransition: the rollout's state does not allow it; the message says
                what it does allow.
            NotSigned: it is to start or go on, and nobody has signed its version, or the
                metadata has expired.
        """
        now = self._clock()
        with self._uow() as tx:
            before = found(tx, rollout_id, lock=True)
            if kind in {RolloutEvent.START, RolloutEvent.RESUME}:
                self._require_signed(before)
            record = apply(tx, before, Happened(kind, PauseReason.OPERATOR), now)
            if (record.state, record.pause_reason) != (before.state, before.pause_reason):
                detail = {"version": f"{record.model}@{record.version}", "state": record.state}
                tx.audit.add(f"rollout.{kind.value}", record.id, detail)
            if kind is RolloutEvent.ABORT:
                cancel_executions(tx, record, "the rollout was aborted", now)
            return view(tx, record)

    def _require_signed(self, record: RolloutRecord) -> None:
        """See that devices can install the version, now or after the next tick."""
        signer = self._signer
        fault = signer.fault()
        if fault is not None:
            # Every device would refuse it, and the gate would blame the version.
            msg = f"no device would install anything: {fault}"
            raise NotSigned(msg, hint="`argosy trust status` says what to do about it")
        if not (signer.releases() or signer.published(record.model, record.version)):
            msg = (
                f"{record.model}@{record.version} is not signed, and the release keys are not"
                " with the server: no device would install it"
            )
            raise NotSigned(msg, hint="sign it with: argosy trust sign --keys FOLDER")


def _check_variant(manifest: Manifest, spec: RolloutSpec) -> None:
    if spec.variant is not None and manifest.variant(spec.variant) is None:
        there = ", ".join(v.id for v in manifest.variants)
        msg = f"{spec.model}@{spec.version} has no variant {spec.variant!r}; it has {there}"
        raise Invalid(msg)


def _scheduled(rollout_id: str, device: str, wave: int, now: datetime) -> ExecutionRecord:
    return ExecutionRecord(
        id=new_id("exe"), rollout_id=rollout_id, device_id=device, wave=wave, updated_at=now
    )


def found(tx: Transaction, rollout_id: str, *, lock: bool = False) -> RolloutRecord:
    """A rollout's record.

    Raises:
        NotFound: there is none.
    """
    record = tx.rollouts.get(rollout_id, lock=lock)
    if record is None:
        msg = f"there is no rollout {rollout_id}"
        raise NotFound(msg, hint="`argosy rollout ls` lists them")
    return record


def apply(tx: Transaction, record: RolloutRecord, event: Happened, now: datetime) -> RolloutRecord:
    """Move a rollout; a repeat changes nothing.

    Raises:
        IllegalTransition: its state does not allow the event.
    """
    rollout, actions = machine.step(record.machine(), event, now)
    for action in actions:
        if isinstance(action, machine.Refuse):
            raise IllegalTransition(action.detail)
    ended = now if rollout.state in machine.ROLLOUT_TERMINAL else None
    moved = replace(
        record,
        state=rollout.state,
        pause_reason=rollout.pause_reason,
        started_at=record.started_at or (now if event.kind is RolloutEvent.START else None),
        ended_at=record.ended_at or ended,
    )
    if actions:
        tx.rollouts.save(moved)
        announce(tx, moved, now)
    return moved


def cancel_executions(tx: Transaction, record: RolloutRecord, why: str, now: datetime) -> None:
    """End what a rollout has not ended yet."""
    ended = executions.Ended(ExecState.CANCELLED, why)
    for execution in tx.rollouts.executions(record.id):
        if execution.state not in EXEC_TERMINAL:
            move_execution(tx, execution, ended, now)


def move_execution(
    tx: Transaction,
    record: ExecutionRecord,
    event: executions.Event,
    now: datetime,
    timers: Timers | None = None,
) -> ExecutionRecord:
    """Apply an event to an execution, save and announce it.

    A server-side end of an execution that the device works on leaves the record
    unpublished: the control loop then withdraws the desired state and tells the device.
    Its timer begins anew with a change of state, and where ``record.updated_at`` is ``now``.

    Args:
        tx: what it is saved in.
        record: the execution as it is.
        event: what happened.
        now: the time.
        timers: of its rollout; looked up when they are left out.
    """
    moved, actions = moved_execution(tx, record, event, now, timers)
    if moved != record:
        tx.rollouts.save_execution(moved)
    if any(isinstance(action, executions.Announce) for action in actions):
        announce_execution(tx, moved, now)
    return moved


def moved_execution(
    tx: Transaction,
    record: ExecutionRecord,
    event: executions.Event,
    now: datetime,
    timers: Timers | None = None,
) -> tuple[ExecutionRecord, tuple[executions.Action, ...]]:
    """As ``move_execution``, but neither saved nor announced."""
    execution, actions = executions.step(record.machine(), event, now)
    moved = record.moved(execution)
    if (moved.state, moved.attempt) != (record.state, record.attempt):
        moved = replace(moved, updated_at=now)
    if moved.attempt != record.attempt:
        earlier = record.bytes_earlier + (record.bytes_fetched or 0)
        moved = replace(
            moved, bytes_done=None, bytes_total=None, bytes_fetched=None, bytes_earlier=earlier
        )
    if any(isinstance(a, executions.SendCancel | executions.ClearDesired) for a in actions):
        moved = replace(moved, published=False)
    if moved.updated_at == now:
        timers = timers or Timers.of(found(tx, record.rollout_id).spec)
        if moved.state is ExecState.SCHEDULED and event == executions.Retried():
            due = retry_at(record.attempt, now, timers)
        else:
            due = due_at(moved.state, now, timers)
        moved = replace(moved, due_at=due)
    return moved, actions


def announce(tx: Transaction, record: RolloutRecord, now: datetime) -> None:
    """Tell watchers where a rollout stands."""
    data = {"state": record.state.value}
    if record.pause_reason is not None:
        data["pause_reason"] = record.pause_reason.value
    tx.events.add("rollout", record.id, data, now)


def announce_execution(tx: Transaction, record: ExecutionRecord, now: datetime) -> None:
    """Tell watchers where a device stands."""
    data = {
        "execution": record.id,
        "device": record.device_id,
        "wave": record.wave,
        "state": record.state.value,
    }
    optional = {
        "bytes_done": record.bytes_done,
        "bytes_total": record.bytes_total,
        "cause": record.cause and record.cause.value,
        "detail": record.detail,
    }
    data |= {key: value for key, value in optional.items() if value is not None}
    tx.events.add("execution", record.rollout_id, data, now)


def _head(record: RolloutRecord) -> RolloutView:
    return RolloutView(
        id=record.id,
        spec=record.spec,
        state=record.state,
        pause_reason=record.pause_reason,
        created_at=record.created_at,
        ended_at=record.ended_at,
    )


def view(tx: Transaction, record: RolloutRecord) -> RolloutView:
    """A rollout as the API shows it; a draft with who would get which variant."""
    by_wave: dict[int, list[ExecutionView]] = {}
    scheduled = tx.rollouts.executions(record.id)
    for execution in scheduled:
        by_wave.setdefault(execution.wave, []).append(_execution_view(execution))
    waves = tuple(
        WaveView(
            index=wave.idx,
            state=wave.state,
            size=len(by_wave.get(wave.idx, ())),
            stragglers=wave.stragglers,
            evidence=wave.evidence,
            executions=tuple(by_wave.get(wave.idx, ())),
        )
        for wave in tx.rollouts.waves(record.id)
    )
    preview: tuple[VariantShare, ...] = ()
    if record.state is RolloutState.DRAFT:
        preview = resolution.preview(tx, record, [one.device_id for one in scheduled])
    return _head(record).model_copy(update={"waves": waves, "preview": preview})


def _execution_view(record: ExecutionRecord) -> ExecutionView:
    return ExecutionView(
        id=record.id,
        device=record.device_id,
        wave=record.wave,
        attempt=record.attempt,
        state=record.state,
        variant=record.variant,
        bytes_done=record.bytes_done,
        bytes_total=record.bytes_total,
        bytes_fetched=record.bytes_fetched,
        cause=record.cause,
        detail=record.detail,
        updated_at=record.updated_at,
    )
