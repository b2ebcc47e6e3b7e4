"""Rollouts as operators see them: plan, start, pause, resume, abort, retry, look."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.domain.cohort import plan_waves
from orchestrator.domain.rollout import Happened, RolloutEvent
from orchestrator.errors import Invalid, NotSigned
from orchestrator.services import actor
from orchestrator.services.moves import (
    announce,
    announce_execution,
    apply,
    cancel_executions,
    end_executions,
    found,
    move_execution,
    moved_execution,
)
from orchestrator.services.ports import Clock, Signer, UnitOfWork
from orchestrator.services.records import Among, RolloutRecord, WaveRecord
from orchestrator.services.retries import retry
from orchestrator.services.rollout_view import execution_views, head, view
from orchestrator.services.versions import usable
from schemas.ids import new_id
from schemas.model import Manifest
from schemas.rollout import (
    ExecState,
    ExecutionView,
    PauseReason,
    Retried,
    RetryRequest,
    RolloutSpec,
    RolloutState,
    RolloutView,
    WaveState,
)

__all__ = [
    "RolloutService",
    "announce",
    "announce_execution",
    "apply",
    "cancel_executions",
    "end_executions",
    "found",
    "move_execution",
    "moved_execution",
]


PORTION = 4_000
"""Devices of a plan that are written at once: others wait for less than a second."""

REST_SECONDS = 0.12
"""Between two portions: longer than SQLite lets a waiting writer sleep."""


class RolloutService:
    """What the API does with rollouts.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        signer: says what devices would install.
        rest: sleeps so many seconds, between portions of a large plan.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        signer: Signer,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._signer = signer
        self._rest = rest
        self._planning: set[str] = set()

    def plan(self, spec: RolloutSpec) -> RolloutView:
        """Freeze who is in which wave; nothing is sent before ``start``.

        Raises:
            NotFound, Revoked, Conflict: the version is not there, was revoked, or its
                files were collected.
            Invalid: it has no such variant, or no device is targeted.
        """
        now, rollout_id = self._clock(), new_id("rol")
        # Who is in which wave is worked out before the others are kept from writing. A device
        # that is shut out meanwhile is barred by the engine.
        with self._uow.read() as tx:
            version = usable(tx, spec.model, spec.version)
            _check_variant(Manifest.model_validate_json(version.manifest), spec)
            candidates = tx.devices.candidates(spec.device_class, spec.tags)
        if not candidates:
            msg = "no active device matches the target of this rollout"
            raise Invalid(msg, hint="`argosy device ls` shows classes and tags")
        waves = plan_waves(candidates, spec.waves, rollout_id)
        record = RolloutRecord(
            id=rollout_id,
            spec=spec,
            model=spec.model,
            version=spec.version,
            state=RolloutState.DRAFT,
            planned=False,
            created_at=now,
        )
        self._planning.add(rollout_id)
        try:
            record = self._write(record, waves)
        except BaseException:
            self._discard(rollout_id)
            raise
        finally:
            self._planning.discard(rollout_id)
        with self._uow.read() as tx:
            return view(tx, record)

    def _write(self, record: RolloutRecord, waves: Sequence[Sequence[str]]) -> RolloutRecord:
        """Save a plan by portions, between which others write; nobody sees it before its end."""
        spec, now = record.spec, record.created_at
        members = list(_members(waves, now))
        with self._uow() as tx:
            usable(tx, spec.model, spec.version)
            tx.rollouts.add(record, _pending(record.id, len(waves), now), ())
        for start in range(0, len(members), PORTION):
            if start:
                self._rest(REST_SECONDS)
            with self._uow() as tx:
                tx.rollouts.schedule(record.id, members[start : start + PORTION], now)
        planned = replace(record, planned=True)
        with self._uow() as tx:
            usable(tx, spec.model, spec.version)  # it may have been revoked meanwhile
            tx.rollouts.save(planned)
            announce(tx, planned, now)
            detail = {"version": f"{spec.model}@{spec.version}", "devices": len(members)}
            tx.audit.add("rollout.create", record.id, detail)
        return planned

    def tick(self) -> None:
        """Remove what was left of plans whose writing was cut off."""
        with self._uow.read() as tx:
            left = [one for one in tx.rollouts.unplanned() if one not in self._planning]
        for rollout_id in left:
            self._discard(rollout_id)

    def _discard(self, rollout_id: str) -> None:
        more = True
        while more:
            with self._uow() as tx:
                more = tx.rollouts.discard(rollout_id, PORTION)
            if more:
                self._rest(REST_SECONDS)

    def get(self, rollout_id: str) -> RolloutView:
        """One rollout with its waves and executions, of a large one not all."""
        with self._uow.read() as tx:
            return view(tx, found(tx, rollout_id))

    def page(self, before: str | None, limit: int) -> Sequence[RolloutView]:
        """Rollouts, newest first, without their waves."""
        with self._uow.read() as tx:
            return [head(record) for record in tx.rollouts.page(before, limit)]

    def executions(
        self,
        rollout_id: str,
        after: str | None,
        limit: int,
        *,
        states: Collection[ExecState] = (),
        wave: int | None = None,
    ) -> Sequence[ExecutionView]:
        """Devices of a rollout by the id of their execution, from after the cursor."""
        with self._uow.read() as tx:
            record = found(tx, rollout_id)
            among = Among(rollout_id=rollout_id, wave=wave, states=frozenset(states))
            return execution_views(tx, record, tx.executions.page(among, after, limit))

    def operate(self, rollout_id: str, kind: RolloutEvent, reason: str = "") -> RolloutView:
        """Apply an operator's act; of a pause or an abort the reason is kept, and whose it was.

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
            because = f"by {actor.current()}" + (f": {reason}" if reason else "")
            happened = Happened(kind, PauseReason.OPERATOR)
            stops = kind in {RolloutEvent.PAUSE, RolloutEvent.ABORT}
            record = apply(tx, before, happened, now, because=because if stops else None)
            if (record.state, record.pause_reason) != (before.state, before.pause_reason):
                detail = {"version": f"{record.model}@{record.version}", "state": record.state}
                if reason:
                    detail["reason"] = reason
                tx.audit.add(f"rollout.{kind.value}", record.id, detail)
            if kind is RolloutEvent.ABORT:
                cancel_executions(tx, record, "the rollout was aborted", now)
        # Adding a large fleet up takes a while: not while others are kept from writing.
        with self._uow.read() as tx:
            return view(tx, record)

    def retry(self, rollout_id: str, request: RetryRequest) -> Retried:
        """Make another attempt on devices where a rollout that is not over came to nothing.

        Raises:
            IllegalTransition: it has not started, or is over.
            NotFound, Conflict: a device that is named is not in it, or did not fail; or none
                failed.
            NotSigned: as for ``operate``.
        """
        now = self._clock()
        with self._uow() as tx:
            record = found(tx, rollout_id, lock=True)
            self._require_signed(record)
            record, devices = retry(tx, record, request.devices, now)
        with self._uow.read() as tx:
            return Retried(devices=devices, rollout=view(tx, record))

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


def _pending(rollout_id: str, waves: int, now: datetime) -> list[WaveRecord]:
    return [
        WaveRecord(rollout_id=rollout_id, idx=i, state=WaveState.PENDING, entered_at=now)
        for i in range(waves)
    ]


def _members(waves: Sequence[Sequence[str]], now: datetime) -> Iterator[tuple[str, str, int]]:
    """An id for each execution, with its device and wave.

    Ids are counted up from a random one: of so many that are drawn within one millisecond, two
    would now and then be the same.
    """
    number, ms = secrets.randbits(32), int(now.timestamp() * 1000)
    for wave, members in enumerate(waves):
        for device in members:
            number += 1
            yield new_id("exe", now_ms=ms, entropy=number), device, wave
