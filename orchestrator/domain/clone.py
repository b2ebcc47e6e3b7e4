"""Clones: one identity that is used from two places, seen by boots that take turns.

An agent draws a boot id when it starts, and a boot that ended never comes back. So births
of the boots A, B, A mean that two agents share an identity, if the second A was sent after
B was there. Whether it was follows from the boot's uptime, which an agent counts steadily:
a message of uptime ``u`` was sent ``u`` seconds after the boot began, and the boot began no
later than any of its messages came less their uptime. So a message that came late, because
a queue held it back, is told from one that was sent late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

KEEP = 8
"""Boots that are remembered of a device."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A birth. at: when it came, in seconds since 1970. uptime: of the boot, in seconds."""

    boot: str
    session: int
    uptime: float
    at: float


@dataclass(frozen=True, slots=True)
class Turn:
    """A boot that was seen.

    session, uptime: the highest of its messages. began: when the boot began at the latest. since:
    when its first message came in this turn. Times in seconds since 1970.
    """

    boot: str
    session: int
    uptime: float
    began: float
    since: float


class Seen(StrEnum):
    """What a birth means. LATE: it says nothing of now."""

    ON_TIME = "ON_TIME"
    LATE = "LATE"
    CLONE = "CLONE"


def observe(turns: Sequence[Turn], sighting: Sighting) -> tuple[Seen, tuple[Turn, ...]]:
    """Judge a birth by the boots that were seen before it.

    Args:
        turns: of this device, the present one last; at most ``KEEP``.
        sighting: a birth that was not one that the broker had retained.

    Returns:
        What it means, and the turns from now on.
    """
    known = next((turn for turn in turns if turn.boot == sighting.boot), None)
    if known is None:
        return Seen.ON_TIME, (*turns, _first(sighting))[-KEEP:]
    newer = (sighting.session, sighting.uptime) > (known.session, known.uptime)
    began = min(known.began, sighting.at - sighting.uptime)
    if known is turns[-1]:
        if sighting.session < known.session:
            return Seen.LATE, tuple(turns)
        return Seen.ON_TIME, (*turns[:-1], _again(known, sighting, began))
    sent = began + sighting.uptime
    if not newer or sent <= turns[-1].since:
        return Seen.LATE, tuple(turns)
    others = tuple(turn for turn in turns if turn is not known)
    back = replace(_again(known, sighting, began), since=sighting.at)
    return Seen.CLONE, (*others, back)


def cleared(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns once somebody looked into it: only the present boot is still known."""
    return tuple(turns[-1:])


def _first(sighting: Sighting) -> Turn:
    return Turn(
        boot=sighting.boot,
        session=sighting.session,
        uptime=sighting.uptime,
        began=sighting.at - sighting.uptime,
        since=sighting.at,
    )


def _again(known: Turn, sighting: Sighting, began: float) -> Turn:
    uptime = max(known.uptime, sighting.uptime)
    return replace(known, session=sighting.session, uptime=uptime, began=began)
