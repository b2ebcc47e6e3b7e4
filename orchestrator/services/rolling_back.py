"""Taking versions back: devices that serve one get what they served before, or another.

Level-triggered: each tick looks at who serves what is taken back and is in no rollback yet, and
makes, or adds to, a rollout for each version that they are to have. A kill costs a repeat.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from orchestrator.domain import taking_back
from orchestrator.services import moves, rollbacks
from orchestrator.services.ports import Clock, UnitOfWork
from orchestrator.services.records import RolloutRecord, TakenBack
from schemas.rollout import RolloutState

log = logging.getLogger(__name__)

PORTION = 2_000
"""Devices that are added to rollbacks within one transaction."""

LATE = timedelta(days=30)
"""So long after a rollout was rolled back, devices that come late to its version are led away."""

_LATE_SECONDS = 5.0
_REST = 3.0
_LONG_SECONDS = 0.1


class RollingBack:
    """Leads devices away from what is taken back.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        deaf: whether the silence of devices says nothing now.
        monotonic: seconds, by which it rests.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        deaf: Callable[[], bool] = lambda: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._deaf = deaf
        self._monotonic = monotonic
        self._resting: dict[tuple[str, int, str | None], float] = {}

    def tick(self) -> int:
        """One round over all that is taken back; how many devices were added to rollbacks."""
        now = self._clock()
        with self._uow.read() as tx:
            turned = tx.taking_back.turned(now - LATE)
            revoked = tx.taking_back.revoked()
        added, failed = 0, None
        for taken, rollout in (
            *((rollbacks.of(rollout), rollout) for rollout in turned),
            *((taken, None) for taken in revoked),
        ):
            try:
                added += self._rested(taken, rollout)
            except Exception as error:
                # One fault must not keep devices on other versions that are taken back.
                log.exception("%s@%d could not be taken back", taken.model, taken.version)
                failed = error
        if failed is not None:
            raise failed
        return added

    def _rested(self, taken: TakenBack, rollout: RolloutRecord | None) -> int:
        """Look at what may have changed, after such a rest as the last look was worth."""
        key = (taken.model, taken.version, taken.rollout_id)
        if self._monotonic() < self._resting.get(key, 0.0):
            return 0
        began = self._monotonic()
        turning = rollout is not None and rollout.state is RolloutState.ROLLING_BACK
        added = self._turn(rollout.id) if turning and rollout else self._lead(taken)
        took = self._monotonic() - began
        rest = _REST * took if took > _LONG_SECONDS else 0.0
        if not added:
            self._resting[key] = self._monotonic() + max(rest, 0.0 if turning else _LATE_SECONDS)
        return added

    def _turn(self, rollout_id: str) -> int:
        """Bring a rollout that rolls back nearer to its end."""
        now = self._clock()
        with self._uow.read() as tx:
            rollout = moves.found(tx, rollout_id)
            taken = rollbacks.of(rollout)
            stops = rollbacks.to_cancel(tx, rollout) or (
                not self._deaf() and rollbacks.overdue(tx, rollout, now)
            )
            members = tx.taking_back.members(taken, PORTION)
            done = not (stops or members) and taking_back.is_done(
                rollbacks.facts(tx, rollout, taken), now
            )
        if not (stops or members or done):
            return 0
        with self._uow() as tx:
            rollout = moves.found(tx, rollout_id, lock=True)
            if rollout.state is not RolloutState.ROLLING_BACK:
                return 0
            rollbacks.end_in_flight(tx, rollout, now)
            if not self._deaf():
                rollbacks.time_out(tx, rollout, now)
            members = tx.taking_back.members(taken, PORTION)
            rollbacks.add(tx, taken, members, rollout, now)
            if not members and taking_back.is_done(rollbacks.facts(tx, rollout, taken), now):
                rollbacks.finish(tx, rollout, taken, now)
        return len(members)

    def _lead(self, taken: TakenBack) -> int:
        """Add devices that came late to what was rolled back, or that serve what was revoked."""
        with self._uow.read() as tx:
            if not tx.taking_back.members(taken, 1):
                return 0
        now = self._clock()
        with self._uow() as tx:
            members = tx.taking_back.members(taken, PORTION)
            rollout = tx.rollouts.get(taken.rollout_id) if taken.rollout_id else None
            rollbacks.add(tx, taken, members, rollout, now)
        return len(members)
