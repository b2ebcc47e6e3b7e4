"""How far a worker is within its epoch, for those who watch it live."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

EVERY = 0.5
"""Seconds between two steps that are told, at least."""

NEWEST = 0.3
"""The newest measurement's share of a pace: what is of late counts more."""


@dataclass(frozen=True, slots=True)
class Step:
    """A moment of the training of one worker.

    epoch: that runs, from 1. done of total: its batches. loss: of the newest batch whose
    loss is known here; None before the first. samples_per_s: over all workers, of late.
    eta_seconds: until the last epoch that the rules allow, at the pace so far; training
    may well end before. None where the pace is not known yet.
    """

    epoch: int
    done: int
    total: int
    loss: float | None = None
    samples_per_s: float | None = None
    eta_seconds: float | None = None


def eta_seconds(
    *,
    left: int,
    rate: float,
    epochs_left: int,
    epoch_seconds: float,
    budget: float = math.inf,
) -> float:
    """Seconds until training ends at the latest, as it goes.

    Args:
        left: samples of this epoch that are not seen yet.
        rate: samples per second, above 0.
        epochs_left: whole epochs after this one.
        epoch_seconds: of one, with its validation.
        budget: training seconds that ``max_hours`` leaves.
    """
    rest = left / rate
    # The epoch in which the time runs out is still finished.
    return min(rest + epochs_left * epoch_seconds, max(budget, 0.0) + rest)


class Pulse:
    """Tells how an epoch goes, at most every ``EVERY`` seconds.

    Args:
        tell: takes the step.
        clock: seconds, monotonic.
        max_epochs: the last epoch.
    """

    def __init__(
        self, tell: Callable[[Step], None], clock: Callable[[], float], max_epochs: int
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._max_epochs = max_epochs
        self._told = -math.inf
        self._rate: float | None = None
        self._epoch_seconds: float | None = None

    def begin(self, epoch: int, *, batches: int, samples: int, budget: float = math.inf) -> None:
        """Before an epoch of so many batches of this worker, and samples of all workers."""
        self._epoch, self._batches, self._samples = epoch, batches, samples
        self._budget = budget
        self._marked = self._clock()
        self._seen = 0

    def tick(self, done: int, seen: int, loss: Callable[[], float | None]) -> None:
        """After a batch. done: batches; seen: samples of all workers; loss: reads the newest."""
        now = self._clock()
        if now - self._told < EVERY:
            return
        self._told = now
        self._measure(now, seen)
        eta = None
        if self._rate:
            left = max(0, self._samples - seen)
            eta = eta_seconds(
                left=left,
                rate=self._rate,
                epochs_left=max(0, self._max_epochs - self._epoch),
                epoch_seconds=self._epoch_seconds or self._samples / self._rate,
                budget=self._budget,
            )
        self._tell(Step(self._epoch, done, self._batches, loss(), self._rate, eta))

    def end(self, seconds: float) -> None:
        """After an epoch that took so long, validation included."""
        before = self._epoch_seconds
        self._epoch_seconds = seconds if before is None else _blend(before, seconds)

    def _measure(self, now: float, seen: int) -> None:
        passed, came = now - self._marked, seen - self._seen
        if passed <= 0 or came <= 0:
            return
        rate = came / passed
        self._rate = rate if self._rate is None else _blend(self._rate, rate)
        self._marked, self._seen = now, seen


def _blend(before: float, new: float) -> float:
    return (1 - NEWEST) * before + NEWEST * new
