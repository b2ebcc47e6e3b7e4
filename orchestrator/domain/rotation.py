"""Who follows a rotation of the authority, and who would be lost; no IO."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SPREAD_EACH = 0.05
_SPREAD_MOST = 3600.0


@dataclass(frozen=True, slots=True)
class Follower:
    """An active device. roots: which it said it trusts; None: it never said.

    issued_by: the root of its newest certificate; None where that is not known.
    """

    device: str
    online: bool
    connection: tuple[str | None, int]
    roots: tuple[str, ...] | None
    issued_by: str | None


@dataclass(frozen=True, slots=True)
class Following:
    """How far the fleet is. behind: devices that retiring the old root would lose."""

    devices: int
    unheard: int
    known: dict[str, int]
    issued: dict[str, int]
    behind: tuple[Follower, ...]


def follow(followers: Iterable[Follower], active: str, issuers: frozenset[str]) -> Following:
    """Count who knows what.

    Args:
        followers: the active devices.
        active: SHA-256 of the root that stays.
        issuers: SHA-256 of the roots of which a device's certificate will still count.
    """
    devices = unheard = 0
    known: dict[str, int] = {}
    issued: dict[str, int] = {}
    behind: list[Follower] = []
    for one in followers:
        devices += 1
        unheard += one.roots is None
        for root in set(one.roots or ()):
            known[root] = known.get(root, 0) + 1
        if one.issued_by is not None:
            issued[one.issued_by] = issued.get(one.issued_by, 0) + 1
        if active not in (one.roots or ()) or one.issued_by not in issuers:
            behind.append(one)
    return Following(devices, unheard, known, issued, tuple(behind))


def to_call(
    behind: Sequence[Follower], called: frozenset[tuple[str, str | None, int]]
) -> tuple[Follower, ...]:
    """Of those behind, the ones to be asked to renew: connected, and not asked since they are."""
    return tuple(f for f in behind if f.online and (f.device, *f.connection) not in called)


def spread(devices: int) -> float:
    """Over how many seconds so many devices renew, so that they do not come at once."""
    return min(_SPREAD_MOST, devices * _SPREAD_EACH)
