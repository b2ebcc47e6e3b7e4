"""Plans rollouts: who is in which wave, frozen and shown before anything is sent."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.domain.cohort import plan_waves
from orchestrator.errors import Invalid
from orchestrator.services.fleets import target_of
from orchestrator.services.moves import announce
from orchestrator.services.ports import Clock, UnitOfWork
from orchestrator.services.records import RolloutRecord, WaveRecord
from orchestrator.services.rollout_view import view
from orchestrator.services.versions import usable
from schemas.ids import new_id
from schemas.model import Manifest
from schemas.rollout import RolloutSpec, RolloutState, RolloutView, WaveState

PORTION = 4_000
"""Devices of a plan that are written at once: others wait for less than a second."""

REST_SECONDS = 0.12
"""Between two portions: longer than SQLite lets a waiting writer sleep."""


class PlanningService:
    """Makes drafts of rollouts.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        rest: sleeps so many seconds, between portions of a large plan.
    """

    def __init__(
        self, uow: UnitOfWork, clock: Clock, rest: Callable[[float], None] = time.sleep
    ) -> None:
        self._uow = uow
        self._clock = clock
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
            candidates = tx.devices.candidates(target_of(tx, spec), now)
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
