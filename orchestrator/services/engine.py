"""Runs rollouts: snapshot, decide, apply. ``publisher`` then tells the devices.

A round asks the database for sums and for what is due, and moves sets of executions: it takes
as many statements for a hundred thousand devices as for ten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime

from orchestrator.domain.actions import Offer
from orchestrator.domain.because import because_of
from orchestrator.domain.engine import decide
from orchestrator.services import judging, looking
from orchestrator.services.applying import apply
from orchestrator.services.hearing import Hearing
from orchestrator.services.looking import Look, look_at
from orchestrator.services.moves import unreadable
from orchestrator.services.ports import Clock, UnitOfWork

log = logging.getLogger(__name__)

_LONG_SECONDS = 0.1
_REST = 3.0
"""After a look that took long and found nothing to do, so many times as long is rested."""


class RolloutEngine:
    """Closes the difference between what rollouts want and what devices report.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        monotonic: seconds, by which is rested.
        worked: seconds of this thread's work, by which a look is measured: that of others on
            a busy machine says nothing of it.
        hearing: whether the silence of devices says something.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.thread_time,
        hearing: Hearing | None = None,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._monotonic = monotonic
        self._worked = worked
        self._hearing = hearing or Hearing(clock)
        self._resting: dict[str, float] = {}
        self._full: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether the last round offered to as many as it may: others are there and wait."""
        return bool(self._full)

    def tick(self) -> int:
        """One round over all running rollouts; how many actions were applied."""
        with self._uow.read() as tx:
            ids = tx.rollouts.running()
        self._resting = {i: until for i, until in self._resting.items() if i in set(ids)}
        self._full &= set(ids)
        applied, failed, deaf = 0, None, self._hearing.deaf()
        for rollout_id in ids:
            try:
                applied += self._advance(rollout_id, deaf=deaf)
            except Exception as error:
                # One rollout's fault must not stop the others.
                log.exception("%s could not be advanced", rollout_id)
                failed = error
        if failed is not None:
            raise failed
        return applied

    def _advance(self, rollout_id: str, *, deaf: bool) -> int:
        if self._monotonic() < self._resting.get(rollout_id, 0.0):
            return 0
        now = self._clock()
        seen = None
        if rollout_id in self._full:
            self._full.discard(rollout_id)
        else:
            seen = self._foresee(rollout_id, now, deaf=deaf)
            if seen is None:
                return 0
        with self._uow() as tx:
            rollout = tx.rollouts.get(rollout_id, lock=True)
            look = look_at(tx, rollout, now, deaf=deaf, before=seen)
            actions = decide(look.snapshot, now) if look else ()
            because = because_of(actions) or (unreadable(look.rollout) if look else None)
            for action in actions:
                if look is not None and not apply(tx, look, action, now, because):
                    break
        offered = look is not None and any(isinstance(one, Offer) for one in actions)
        if look is not None and offered and len(look.waiting) >= looking.ROUND:
            self._full.add(rollout_id)
        return len(actions)

    def _foresee(self, rollout_id: str, now: datetime, *, deaf: bool) -> Look | None:
        """What is to be done, holding no writer up: most rounds find that it is nothing (None)."""
        began = self._worked()
        with self._uow.read() as tx:
            look = look_at(tx, tx.rollouts.get(rollout_id), now, deaf=deaf)
        actions = decide(look.snapshot, now) if look is not None else ()
        if look is None or not actions:
            took = self._worked() - began
            if took > _LONG_SECONDS:
                self._resting[rollout_id] = self._monotonic() + _REST * took
            return None
        return judging.take(self._uow, look, actions, now)
