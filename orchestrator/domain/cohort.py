"""Who is in which wave: stable, stratified by device class, fixed when it is planned."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from schemas.rollout import WaveSpec


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that the rollout targets."""

    device: str
    device_class: str


def order(candidates: Iterable[Candidate], seed: str) -> tuple[str, ...]:
    """Devices in the order in which waves take them.

    Within a class the order is that of a hash of seed and device, so it does not
    depend on who else is there. Classes are interleaved by their relative rank, so
    that every prefix holds each class in about its share.
    """
    return tuple(one.device for _, one in _ranked((_hash(seed, c.device), c) for c in candidates))


_Hashed = tuple[bytes, Candidate]


def _ranked(hashed: Iterable[_Hashed]) -> list[_Hashed]:
    by_class: dict[str, list[_Hashed]] = defaultdict(list)
    for one in sorted(hashed, key=lambda pair: (pair[0], pair[1].device)):
        by_class[one[1].device_class].append(one)
    ranks = (
        ((rank + 0.5) / len(members), *one)
        for members in by_class.values()
        for rank, one in enumerate(members)
    )
    return [(digest, one) for _, digest, one in sorted(ranks, key=_by_rank)]


def _by_rank(ranked: tuple[float, bytes, Candidate]) -> tuple[float, bytes, str]:
    return ranked[0], ranked[1], ranked[2].device


def _hash(seed: str, device: str) -> bytes:
    return hashlib.sha256(f"{seed}/{device}".encode()).digest()


def plan_waves(
    candidates: Sequence[Candidate],
    specs: Sequence[WaveSpec],
    seed: str,
    matching: Sequence[AbstractSet[str] | None] = (),
) -> tuple[tuple[str, ...], ...]:
    """Cut the order into waves; empty waves are left out.

    A count takes that many more devices. A percentage brings the devices taken so far
    up to that share of all, rounded up, so 100 takes the rest. A selector takes whom it matches
    and nobody has taken yet.

    Args:
        candidates: the target.
        specs: the waves.
        seed: of the order; the same one gives the same plan.
        matching: for each wave the devices that its selector matches; None where it has none.
    """
    left = _ranked((_hash(seed, one.device), one) for one in candidates)
    total, taken = len(left), 0
    waves: list[tuple[str, ...]] = []
    for index, spec in enumerate(specs):
        if spec.where is not None:
            meant = matching[index] or frozenset()
            wave = [one for one in left if one[1].device in meant]
            # The shares of classes are now those of who is left.
            left = _ranked(one for one in left if one[1].device not in meant)
        else:
            size = _size(spec, total, taken)
            wave, left = left[:size], left[size:]
        taken += len(wave)
        if wave:
            waves.append(tuple(one.device for _, one in wave))
    return tuple(waves)


def _size(spec: WaveSpec, total: int, taken: int) -> int:
    """How many more a count or a percentage takes at most."""
    if spec.count is not None:
        return spec.count
    share = (spec.percent or 0) / 100
    return max(0, math.ceil(total * share - 1e-9) - taken)
