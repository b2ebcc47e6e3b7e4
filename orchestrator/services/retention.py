"""Lets go of events that nobody will ask for any more."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.services.ports import Clock, UnitOfWork

EVENT_DAYS = 14
MAX_EVENTS = 1_000_000
_EVERY = timedelta(minutes=5)
_BATCH = 2_000


class Retention:
    """Deletes events that are too old or too many, the oldest first.

    A reader that comes back with the number of a deleted event goes on with what is left.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        days: how long an event is kept.
        rows: how many are kept at most.
        every: the time between two sweeps.
        batch: events deleted per transaction, so that no other writer waits for long.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        *,
        days: float = EVENT_DAYS,
        rows: int = MAX_EVENTS,
        every: timedelta = _EVERY,
        batch: int = _BATCH,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._age = timedelta(days=days)
        self._rows = rows
        self._every = every
        self._batch = batch
        self._swept: datetime | None = None
        self._up_to: int | None = None

    def tick(self) -> int:
        """One batch of a sweep that is due; how many events went.

        A sweep that is not done goes on at the next tick.
        """
        now = self._clock()
        if self._up_to is None:
            if not self._due(now):
                return 0
            # Counting a million rows takes a while, so once per sweep, and beside the writers.
            with self._uow.read() as tx:
                self._up_to = tx.events.surplus(self._rows)
        with self._uow() as tx:
            gone = tx.events.prune(now - self._age, self._up_to, self._batch)
        if gone < self._batch:
            self._swept, self._up_to = now, None
        return gone

    def _due(self, now: datetime) -> bool:
        # A clock that was set back must not stop the sweeps.
        return self._swept is None or not self._swept <= now < self._swept + self._every
