"""What goes wrong, when and to whom: a pure function of the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A fault. What the amount means stands beside it."""

    KILL = "kill"
    POWER_CUT = "power cut"
    NETWORK_CUT = "network cut"
    SILENCE = "silence"  # what is sent vanishes
    DELAY = "delay"  # seconds each way
    SLOW = "slow"  # bytes a second
    BREAK = "break"  # bytes until the connection breaks
    FULL_DISK = "full disk"
    FULL_START = "full disk at a start"
    DAMAGE = "damage"  # which file, as a share of those there are
    LIE = "lie"  # an old, a foreign or a senseless order
    BROKER = "broker killed"
    SERVER = "server killed"


OF_DEVICES = tuple(kind for kind in Kind if kind not in {Kind.BROKER, Kind.SERVER})
PLATFORM = -1
"""The target of a fault that no device has alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """at: seconds after the begin. seconds: how long. target: a device's number."""

    at: float
    seconds: float
    kind: Kind
    target: int
    amount: float

    def __str__(self) -> str:
        whom = "platform" if self.target == PLATFORM else f"device {self.target}"
        return f"{self.at:6.2f} s  {whom}: {self.kind} ({self.amount:.3g}) for {self.seconds:.2f} s"


@dataclass(frozen=True, slots=True)
class Schedule:
    """All faults of a run, in their order. Those of one target follow each other."""

    seed: int
    devices: int
    seconds: float
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


def draw(seed: int, *, devices: int, seconds: float) -> Schedule:
    """Draw the faults of a run of so many devices and seconds."""
    faults: list[Fault] = []
    for target in (PLATFORM, *range(devices)):
        # A stream for each target: a device more does not change what happens to the others.
        dice = random.Random(f"{seed}/{target}")  # noqa: S311 - to be repeated, not secret
        kinds = (Kind.BROKER, Kind.SERVER) if target == PLATFORM else OF_DEVICES
        most, pause = (3.0, 6.0) if target == PLATFORM else (3.0, 4.0)
        at = dice.uniform(0.0, pause)
        while at < seconds:
            kind = dice.choice(kinds)
            lasts = min(dice.uniform(0.1, most), seconds - at)
            faults.append(
                Fault(at=at, seconds=lasts, kind=kind, target=target, amount=_amount(dice, kind))
            )
            at += lasts + dice.uniform(0.3, pause)
    return Schedule(seed, devices, seconds, tuple(sorted(faults, key=lambda f: (f.at, f.target))))


def _amount(dice: random.Random, kind: Kind) -> float:
    match kind:
        case Kind.DELAY:
            return dice.uniform(0.01, 0.5)
        case Kind.SLOW:
            return dice.uniform(20_000, 500_000)
        case Kind.BREAK:
            return float(dice.randrange(1_000, 600_000))
        case _:
            return dice.random()
