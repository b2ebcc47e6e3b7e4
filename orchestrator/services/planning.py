"""Plans rollouts: who is in which wave, frozen and shown before anything is sent."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.domain.cohort import plan_waves
from orchestrator.errors import Invalid
from orchestrator.services.effects import check_effective
from orchestrator.services.fleets import found as fleet
from orchestrator.services.fleets import frozen_target
from orchestrator.services.moves import announce
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import RolloutRecord, Target, WaveRecord
from orchestrator.services.rollout_view import foresight
from orchestrator.services.versions import usable
from schemas.ids import new_id
from schemas.model import Manifest
from schemas.rollout import RolloutSpec, RolloutState, WaveSpec, WaveState
from schemas.rollout_view import RolloutView
from schemas.selector import parse

PORTION = 4_000
"""Devices of a plan that are written at once: others wait for less than a second."""

REST_SECONDS = 0.12
"""Between two portions: longer than SQLite lets a waiting writer sleep."""


DRAFT_DAYS = 7
"""After so long a draft that nobody started is discarded."""


class PlanningService:
    """Makes drafts of rollouts.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        rest: sleeps so many seconds, between portions of a large plan.
        transfer_rate: bytes a second that the server sends at most; None is without limit.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        rest: Callable[[float], None] = time.sleep,
        transfer_rate: int | None = None,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._rest = rest
        self._transfer_rate = transfer_rate
        self._planning: set[str] = set()

    def plan(self, spec: RolloutSpec, only: Collection[str] | None = None) -> RolloutView:
        """Freeze who is in which wave; nothing is sent before ``start``.

        Args:
            spec: what is asked for.
            only: of the target these devices alone; None: all of it.

        Raises:
            NotFound, Revoked, Conflict: the version is not there, was revoked, or its
                files were collected; likewise the one to go back to; or there is no such fleet.
            Invalid: it has no such variant, no device is targeted, nor any by the selector of a
                wave, or it would go back to a version that is not older; or a part of the plan has
                no effect.
        """
        now, rollout_id = self._clock(), new_id("rol")
        check_effective(spec, now)
        # Who is in which wave is worked out before the others are kept from writing. A device
        # that is shut out meanwhile is barred by the engine.
        with self._uow.read() as tx:
            _check(tx, spec)
            fleet_where = None if spec.fleet is None else fleet(tx, spec.fleet).selector
            target = frozen_target(spec, fleet_where)
            candidates = tx.devices.candidates(target, now)
            if only is not None:
                candidates = [one for one in candidates if one.device in only]
            matching = [_matching(tx, target, wave, now) for wave in spec.waves]
        if not candidates and not spec.dynamic:
            msg = "no active device matches the target of this rollout"
            raise Invalid(msg, hint="`argosy device ls` shows classes and tags")
        if candidates:
            _check_waves(spec, matching)
        waves = plan_waves(candidates, spec.waves, rollout_id, matching)
        record = RolloutRecord(
            id=rollout_id,
            spec=spec,
            model=spec.model,
            version=spec.version,
            state=RolloutState.DRAFT,
            planned=False,
            fleet_where=fleet_where,
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
            seen = foresight(tx, record, now, self._transfer_rate)
        return _noted(seen, len(candidates) - sum(map(len, waves)))

    def _write(self, record: RolloutRecord, waves: Sequence[Sequence[str]]) -> RolloutRecord:
        """Save a plan by portions, between which others write; nobody sees it before its end."""
        spec, now = record.spec, record.created_at
        chosen = list(members(waves, now))
        with self._uow() as tx:
            usable(tx, spec.model, spec.version)
            tx.rollouts.add(record, _pending(record.id, len(waves), now), ())
        for start in range(0, len(chosen), PORTION):
            if start:
                self._rest(REST_SECONDS)
            with self._uow() as tx:
                tx.rollouts.schedule(record.id, chosen[start : start + PORTION], now)
        planned = replace(record, planned=True)
        with self._uow() as tx:
            usable(tx, spec.model, spec.version)  # it may have been revoked meanwhile
            tx.rollouts.save(planned)
            announce(tx, planned, now)
            detail = {"version": f"{spec.model}@{spec.version}", "devices": len(chosen)}
            tx.audit.add("rollout.create", record.id, detail)
        return planned

    def tick(self) -> None:
        """Remove what was left of plans whose writing was cut off, and drafts that are old."""
        before = self._clock() - timedelta(days=DRAFT_DAYS)
        with self._uow.read() as tx:
            left = [one for one in tx.rollouts.unplanned() if one not in self._planning]
            old = [one.id for one in tx.rollouts.drafts(before)]
        for rollout_id in old:
            self._forget(rollout_id)
        for rollout_id in (*left, *old):
            self._discard(rollout_id)

    def _forget(self, rollout_id: str) -> None:
        """Have nobody see a draft any more, unless somebody started it meanwhile."""
        with self._uow() as tx:
            record = tx.rollouts.get(rollout_id, lock=True)
            if record is None or record.state is not RolloutState.DRAFT:
                return
            tx.rollouts.save(replace(record, planned=False))
            version = f"{record.model}@{record.version}"
            detail = {"version": version, "why": f"not started in {DRAFT_DAYS} days"}
            tx.audit.add("rollout.discard", record.id, detail)

    def _discard(self, rollout_id: str) -> None:
        more = True
        while more:
            with self._uow() as tx:
                more = tx.rollouts.discard(rollout_id, PORTION)
            if more:
                self._rest(REST_SECONDS)


def _check(tx: Transaction, spec: RolloutSpec) -> None:
    """See that there is what the plan is to ship, and what it may have to go back to."""
    manifest = Manifest.model_validate_json(usable(tx, spec.model, spec.version).manifest)
    if spec.variant is not None and manifest.variant(spec.variant) is None:
        there = ", ".join(v.id for v in manifest.variants)
        msg = f"{spec.model}@{spec.version} has no variant {spec.variant!r}; it has {there}"
        raise Invalid(msg)
    if spec.rollback_to is None:
        return
    usable(tx, spec.model, spec.rollback_to)
    if spec.rollback_to >= spec.version:
        msg = f"{spec.model}@{spec.rollback_to} is not older than {spec.model}@{spec.version}"
        raise Invalid(msg, hint="what is taken back makes place for an older version")


def _check_waves(spec: RolloutSpec, matching: Sequence[AbstractSet[str] | None]) -> None:
    """See that each selector of a wave means somebody.

    A canary that is misspelt would be left out otherwise, and all the others go first.
    """
    for number, (wave, meant) in enumerate(zip(spec.waves, matching, strict=True), 1):
        if meant is not None and not meant:
            msg = f"wave {number}: no active device of the target matches {wave.where}"
            raise Invalid(msg, hint=f"see whom it means: argosy device ls --where '{wave.where}'")


def _matching(
    tx: Transaction, target: Target, wave: WaveSpec, now: datetime
) -> AbstractSet[str] | None:
    """The devices of the target that a wave's selector matches; None where it has none."""
    if wave.where is None:
        return None
    its = tx.devices.candidates(target.narrowed(parse(wave.where)), now)
    return {one.device for one in its}


def _noted(seen: RolloutView, left_out: int) -> RolloutView:
    """The plan with what only its making knows: whom and what it leaves out."""
    if seen.estimate is None:
        return seen
    notes = list(seen.estimate.notes)
    if left_out:
        notes.append(f"{left_out} devices of the target are in no wave: the last one is no 100%")
    empty = len(seen.spec.waves) - len(seen.waves)
    if empty:
        notes.append(f"{empty} of its waves would be empty, and are left out")
    return seen.model_copy(
        update={"estimate": seen.estimate.model_copy(update={"notes": tuple(notes)})}
    )


def _pending(rollout_id: str, waves: int, now: datetime) -> list[WaveRecord]:
    return [
        WaveRecord(rollout_id=rollout_id, idx=i, state=WaveState.PENDING, entered_at=now)
        for i in range(waves)
    ]


def members(waves: Sequence[Sequence[str]], now: datetime) -> Iterator[tuple[str, str, int]]:
    """An id for each execution, with its device and wave.

    Ids are counted up from a random one: of so many that are drawn within one millisecond, two
    would now and then be the same.
    """
    number, ms = secrets.randbits(32), int(now.timestamp() * 1000)
    for wave, devices in enumerate(waves):
        for device in devices:
            number += 1
            yield new_id("exe", now_ms=ms, entropy=number), device, wave
