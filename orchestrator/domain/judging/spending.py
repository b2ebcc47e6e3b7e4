"""When a wave's telemetry is looked at, and what of alpha each look may spend."""

from __future__ import annotations

from datetime import datetime, timedelta

from schemas.gates import Gates

FIRST_SECONDS = 5.0
"""Windows of an update are cut every so often; looking sooner would see nothing new."""


def next_look(look: int, looked_at: datetime, gates: Gates) -> datetime:
    """When to look again.

    Args:
        look: looks so far; 0: none, the first is due at once.
        looked_at: when the last of them was; of none, when the soak was over.
        gates: of the rollout.

    Returns:
        After the first look the soak's length later (5 s at least), then twice as long after
        the end of the soak each time. The caller lets none be later than the end of
        ``evidence_seconds``, which is the last.
    """
    if look <= 0:
        return looked_at
    first = max(FIRST_SECONDS, gates.soak_seconds)
    wait = first * 2.0 ** max(0, min(look, 32) - 2)
    return looked_at + timedelta(seconds=min(wait, gates.evidence_seconds))


def spent(alpha: float, look: int, *, last: bool) -> float:
    """What of alpha a look may spend; over all looks it comes to alpha at most.

    The first spends half, the second a sixth, look k a part of 1 / (k (k + 1)), and the last what
    is left, which is 1 / k: a bad version is stopped early, and yet late looks, which have most
    of the data, are not powerless, as they would be if each took half of what is left.

    Args:
        alpha: for all of them.
        look: which, from 1.
        last: whether no other one follows.
    """
    look = max(1, look)
    return alpha / look if last else alpha / (look * (look + 1))
