"""Which of two rollouts of one model has a device.

Rollouts have an order: by priority, of equal ones by when they were started. The higher one has
the device while it works there. Once its work there is over, it keeps the device from those alone
that were started before it, so that no finished rollout stands in the way of the next one.

Executions that lose are SUPERSEDED, which is an end: a device is passed on at most once for each
attempt that a rollout has there, and stays where it is in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

ROLLBACK_PRIORITY = 101
"""Above all that an operator can give."""


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """Where a rollout stands among those of its model."""

    priority: int
    started_at: datetime
    rollout: str


def keeps(other: Rank, mine: Rank, *, working: bool) -> bool:
    """Whether the rollout that gave a device its newest version keeps it from mine.

    Args:
        other: the one that gave it.
        mine: the one that would offer now.
        working: the other's execution on that device is not over.
    """
    if other <= mine:
        return False
    later = (other.started_at, other.rollout) > (mine.started_at, mine.rollout)
    return working or later
