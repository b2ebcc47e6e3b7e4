"""Who is in which wave: stable, stratified by device class, fixed when it is planned."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.rollout import WaveSpec


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that the rollout targets."""

    device: str
    device_class: str


def order(candidates: Sequence[Candidate], seed: str) -> tuple[str, ...]:
    """Devices in the order in which waves take them.

    Within a class the order is that of a hash of seed and device, so it does not
    depend on who else is there. Classes are interleaved by their relative rank, so
    that every prefix holds each class in about its share.
    """
    by_class: dict[str, list[str]] = defaultdict(list)
    for candidate in candidates:
        by_class[candidate.device_class].append(candidate.device)
    ranked: list[tuple[float, bytes, str]] = []
    for devices in by_class.values():
        hashed = sorted((_hash(seed, device), device) for device in devices)
        ranked.extend(
            ((rank + 0.5) / len(hashed), digest, device)
            for rank, (digest, device) in enumerate(hashed)
        )
    return tuple(device for _, _, device in sorted(ranked))


def _hash(seed: str, device: str) -> bytes:
    return hashlib.sha256(f"{seed}/{device}".encode()).digest()


def plan_waves(
    candidates: Sequence[Candidate], specs: Sequence[WaveSpec], seed: str
) -> tuple[tuple[str, ...], ...]:
    """Cut the order into waves; empty waves are left out.

    A count takes that many more devices. A percentage brings the devices taken so far
    up to that share of all, rounded up, so 100 takes the rest.
    """
    ordered = order(candidates, seed)
    waves: list[tuple[str, ...]] = []
    taken = 0
    for spec in specs:
        if spec.count is not None:
            end = min(len(ordered), taken + spec.count)
        else:
            share = (spec.percent or 0) / 100
            end = max(taken, min(len(ordered), math.ceil(len(ordered) * share - 1e-9)))
        if end > taken:
            waves.append(ordered[taken:end])
        taken = end
    return tuple(waves)
