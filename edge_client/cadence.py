"""How often windows are cut: often while a version is new to a process, seldom in peace.

A rollout is judged on what devices tell in the minutes after a swap; a device that has served the
same version for days need not tell of it every five seconds. Pure: times in, an answer out.
"""

from __future__ import annotations

NEW_SECONDS = 15 * 60.0
"""For so long after a load a version is new."""

OFTEN_SECONDS = 5.0
SELDOM_SECONDS = 60.0

EARLY = 0.9
"""Of the time between two cuts: a look that comes a little early must not wait for the next."""


def is_due(
    now: float,
    *,
    cut_at: float,
    loaded_at: float | None,
    updating: bool = False,
    every: float | None = None,
) -> bool:
    """Whether windows are to be cut.

    Args:
        now: seconds of a steady clock, as the others.
        cut_at: when they were cut last.
        loaded_at: when this process last loaded a model; None if it never did.
        updating: an update is under way.
        every: seconds between cuts, where somebody said so.
    """
    new = loaded_at is not None and 0 <= now - loaded_at < NEW_SECONDS
    wanted = every or (OFTEN_SECONDS if new or updating else SELDOM_SECONDS)
    # A clock that went back must not stop the telling.
    return not 0 <= now - cut_at < EARLY * wanted


def look_every(every: float | None) -> float:
    """Seconds from one look whether it is due to the next."""
    return every or OFTEN_SECONDS
