"""How far a worker is within its epoch, for those who watch it live."""

from __future__ import annotations

from dataclasses import dataclass


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
