"""Who gets which version in an experiment: by chance, and yet in every class in the same shares."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.domain.cohort import Candidate


@dataclass(frozen=True, slots=True)
class Arms:
    """The devices of each side."""

    a: frozenset[str]
    b: frozenset[str]


def split(candidates: Sequence[Candidate], seed: str, *, percent: float, share: float) -> Arms:
    """Draw who takes part, and who of them gets b.

    Within a class devices are in the order of a hash of seed and device, so that nothing that is
    known of a device says where it will be. The first of them take part, of those the first get b.
    What is left over by whole numbers, as the half device of three, goes by a hash of the class.

    Args:
        candidates: the target.
        seed: the experiment's id.
        percent: of each class that takes part.
        share: of those, who get b.
    """
    by_class: dict[str, list[str]] = defaultdict(list)
    for candidate in candidates:
        by_class[candidate.device_class].append(candidate.device)
    sides: tuple[set[str], set[str]] = (set(), set())
    for name, devices in by_class.items():
        ordered = sorted(devices, key=lambda device: _hash(f"{seed}/{device}"))
        chance = int.from_bytes(_hash(f"{seed}/class/{name}")[:6]) / 2**48
        part = ordered[: math.ceil(len(ordered) * percent / 100 - 1e-9)]
        first = math.floor(len(part) * share + chance)
        sides[1].update(part[:first])
        sides[0].update(part[first:])
    return Arms(frozenset(sides[0]), frozenset(sides[1]))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
