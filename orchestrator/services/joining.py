"""Dynamic rollouts: devices that come to match join, and those that match no more leave.

Level-triggered: each look asks who matches and is not in the rollout, so nothing is missed and a
crash costs a repeat.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.dynamic import absent, place
from orchestrator.services.fleets import frozen_target
from orchestrator.services.moves import announce_moved
from orchestrator.services.planning import members
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import Among, Moved, RolloutRecord
from orchestrator.services.retries import make_wave, standing
from schemas.rollout import ExecState, RolloutState

log = logging.getLogger(__name__)

EVERY_SECONDS = 2.0
"""Between two looks."""

ROUND = 1_000
"""Devices that join, or leave, a rollout in one round."""

LEFT = "the device does not match the rollout's target any more"

_LONG_SECONDS = 0.1
_REST = 3.0
"""After a look that took long and found nothing, so many times as long is rested."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Devices that join, and executions that return or leave."""

    joiners: Sequence[str] = ()
    returning: Sequence[str] = ()
    leaving: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.joiners or self.returning or self.leaving)


class JoiningService:
    """Keeps dynamic rollouts and their targets together.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        monotonic: seconds, by which looks are spaced.
        worked: seconds of this thread's work, by which a look is measured.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.thread_time,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._monotonic = monotonic
        self._worked = worked
        self._next = 0.0
        self._resting: dict[str, float] = {}

    def tick(self) -> int:
        """Look, if it is time to; how many devices joined, returned or left."""
        now = self._monotonic()
        if now < self._next:
            return 0
        self._next = now + EVERY_SECONDS
        with self._uow.read() as tx:
            rollouts = [one for one in tx.joining.dynamic() if _joined(one)]
        ids = {one.id for one in rollouts}
        self._resting = {i: until for i, until in self._resting.items() if i in ids}
        moved, failed = 0, None
        for rollout in rollouts:
            try:
                moved += self._look(rollout)
            except Exception as error:
                # One rollout's fault must not stop the others.
                log.exception("who joins %s could not be looked at", rollout.id)
                failed = error
        if failed is not None:
            raise failed
        return moved

    def _look(self, rollout: RolloutRecord) -> int:
        if self._monotonic() < self._resting.get(rollout.id, 0.0):
            return 0
        now, began = self._clock(), self._worked()
        with self._uow.read() as tx:  # most looks find nothing, and hold no writer up
            found = _find(tx, rollout, now)
        if not found:
            took = self._worked() - began
            if took > _LONG_SECONDS:
                self._resting[rollout.id] = self._monotonic() + _REST * took
            return 0
        with self._uow() as tx:
            current = tx.rollouts.get(rollout.id, lock=True)
            if current is None or not _joined(current):
                return 0
            return _apply(tx, current, found, now)


def _joined(rollout: RolloutRecord) -> bool:
    going = rollout.state is RolloutState.RUNNING and rollout.spec.dynamic
    return going and not rollout.unreadable


def _find(tx: Transaction, rollout: RolloutRecord, now: datetime) -> _Found:
    target = frozen_target(rollout.spec, rollout.fleet_where)
    return _Found(
        tx.joining.joiners(rollout.id, target, now, ROUND),
        tx.joining.returning(rollout.id, target, now, ROUND),
        tx.joining.leaving(rollout.id, target, now, ROUND),
    )


def _apply(tx: Transaction, rollout: RolloutRecord, found: _Found, now: datetime) -> int:
    moved: list[Moved] = []
    if found.leaving:
        its = Among(
            rollout_id=rollout.id,
            ids=tuple(found.leaving),
            states=frozenset({ExecState.SCHEDULED}),  # not what was offered meanwhile
        )
        moved += tx.executions.end(its, ExecState.REMOVED, LEFT, now, ROUND)
        announce_moved(tx, moved, ExecState.REMOVED, now, LEFT)
    there = tx.executions.of_devices(rollout.id, found.joiners) if found.joiners else {}
    joiners = [device for device in found.joiners if device not in there]
    if joiners or found.returning:
        moved += _join(tx, rollout, joiners, found.returning, now)
    return len(moved)


def _join(
    tx: Transaction,
    rollout: RolloutRecord,
    joiners: Sequence[str],
    returning: Sequence[str],
    now: datetime,
) -> Sequence[Moved]:
    waves = [standing(one) for one in tx.rollouts.waves(rollout.id)]
    to = place(waves)
    if to.new:
        make_wave(tx, rollout.id, to, now, joiners=True)
    new = [(execution, device, to.index) for execution, device, _ in members([joiners], now)]
    tx.rollouts.schedule(rollout.id, new, now)
    moved = [Moved(execution, device, rollout.id, to.index) for execution, device, _ in new]
    moved += tx.joining.take_back(returning, to.index, now) if returning else ()
    announce_moved(tx, moved, ExecState.SCHEDULED, now)
    late = absent(waves)
    if late is not None:
        # That wave waits for this one: whoever of it is there by now need not.
        come = Among(
            rollout_id=rollout.id,
            wave=late,
            states=frozenset({ExecState.SCHEDULED}),
            online=True,
        )
        tx.executions.put_in_wave(come, to.index)
    return moved
