"""What the server's clock says, from answers to ``up/time``: decisions only.

Cristian's algorithm (Distributed Computing 3, 1989): an answer holds for the middle between asking
and hearing it, and is off by at most half of that time. The answer with the smallest error is kept;
an older one grows worse by what two clocks may drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass

DRIFT = 50e-6
"""Seconds a second by which the steady clock may run wrong: what crystals are sold with."""

JITTER_SECONDS = 1.0
"""By which clocks may be apart beyond their errors, as while one is slewed."""

MAX_ROUND_SECONDS = 30.0
"""An answer that took longer says too little."""

ASKS = 4
ASK_SECONDS = 1.0
"""So many questions in a row, that many seconds apart: of several the quickest counts."""

AGAIN_SECONDS = 900.0
"""From the last of them to the next ones."""

SOON_SECONDS = 5.0
"""The same while something waits for an answer, and none has come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """What to add to a machine's steady clock for the server's time.

    offset: seconds. error: by how much it may be wrong, when it was ``at`` by the steady clock.
    """

    offset: float
    error: float
    at: float

    def error_at(self, now: float) -> float:
        """By how much it may be wrong at another time, before or after."""
        return self.error + DRIFT * abs(now - self.at)


def answered(
    best: Sync | None, *, asked: float, heard: float, server: float, now: float
) -> Sync | None:
    """The better one of what was known and of what an answer says.

    Args:
        best: what was known.
        asked: when the question went out, by the steady clock.
        heard: when the answer came.
        server: seconds since 1970, from the answer.
        now: by the steady clock.
    """
    took = heard - asked
    if not 0 <= took <= MAX_ROUND_SECONDS:
        return best
    new = Sync(offset=server - (asked + heard) / 2, error=took / 2, at=heard)
    if best is None or new.error_at(now) <= best.error_at(now):
        return new
    # Both cannot be true (Marzullo and Owicki, PODC 1983): the server's clock was set meanwhile.
    apart = abs(new.offset - best.offset)
    return new if apart > new.error_at(now) + best.error_at(now) + JITTER_SECONDS else best


@dataclass(frozen=True, slots=True, kw_only=True)
class Dated:
    """A moment since 1970 in milliseconds. synced: by the server's clock, not the device's."""

    ms: int
    synced: bool


def date(steady: float, sync: Sync | None, device: float) -> Dated:
    """When a moment was.

    Args:
        steady: the moment, by the steady clock of its machine's start.
        sync: of that start, or None if the server was never reached in it.
        device: seconds since 1970 that the device's own clock said then.
    """
    seconds = device if sync is None else steady + sync.offset
    return Dated(ms=min(max(0, round(seconds * 1000)), 10**14), synced=sync is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """When to ask. left: questions of this round still to ask. due: by the steady clock."""

    left: int = ASKS
    due: float = 0.0

    def soon(self, now: float) -> Plan:
        """While nothing has been answered, and something waits for it."""
        soon = now + SOON_SECONDS
        return self if self.due <= soon else Plan(left=1, due=soon)

    def asked(self, now: float) -> Plan:
        """After a question went out."""
        if self.left > 1:
            return Plan(left=self.left - 1, due=now + ASK_SECONDS)
        return Plan(left=ASKS, due=now + AGAIN_SECONDS)
