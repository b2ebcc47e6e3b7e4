"""What one device of a simulated fleet is: drawn once, from the seed and its number."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.simulator.draws import normal, share
from orchestrator.simulator.profile import (
    DuplicatedReports,
    Effect,
    Flapping,
    Kind,
    LostReports,
    Offline,
    Profile,
    Slow,
    WrongClock,
)


@dataclass(frozen=True, slots=True)
class Traits:
    """A device. slowness: factor of every step of an update. flaps: (seconds up, seconds down).

    clock_hours: how far its clock is off; None where it learns the server's. lost, doubled: shares
    of its reports. ability: deviations from the class in accuracy and latency, standard normal.
    """

    number: int
    kind: Kind
    offline: bool = False
    slowness: float = 1.0
    flaps: tuple[float, float] | None = None
    clock_hours: float | None = None
    lost: float = 0.0
    doubled: float = 0.0
    ability: tuple[float, float] = (0.0, 0.0)


def kinds(profile: Profile, count: int) -> list[Kind]:
    """The classes of devices 0 to ``count``, by their shares.

    At each number the class takes its turn that lags its share the most, so that any stretch is
    mixed alike, and a larger fleet begins as a smaller one does.
    """
    total = sum(kind.share for kind in profile.classes)
    had = [0] * len(profile.classes)
    found: list[Kind] = []
    for number in range(count):
        lags = [
            k.share / total * (number + 1) - n for k, n in zip(profile.classes, had, strict=True)
        ]
        turn = lags.index(max(lags))
        had[turn] += 1
        found.append(profile.classes[turn])
    return found


def draw(profile: Profile, kind: Kind, number: int, seed: int) -> Traits:
    """The traits of a device of that class. Of several faults of a kind the last one holds."""
    found: dict[str, object] = {}
    for place, fault in enumerate(profile.faults):
        if fault.device_class not in {None, kind.name}:
            continue
        if share(seed, number, "fault", place) >= fault.share:
            continue
        match fault:
            case Offline():
                found["offline"] = True
            case Slow():
                found["slowness"] = fault.factor
            case Flapping():
                found["flaps"] = (fault.every_seconds, fault.down_seconds)
            case WrongClock():
                found["clock_hours"] = fault.hours
            case LostReports():
                found["lost"] = fault.rate
            case DuplicatedReports():
                found["doubled"] = fault.rate
    ability = (normal(seed, number, "accuracy"), normal(seed, number, "latency"))
    return Traits(number=number, kind=kind, ability=ability, **found)  # type: ignore[arg-type]


def effects(
    profile: Profile, traits: Traits, model: str, version: int, seed: int
) -> tuple[Effect, ...]:
    """The effects that a version has on a device."""
    return tuple(
        effect
        for place, effect in enumerate(profile.versions)
        if effect.model in {None, model}
        and effect.version in {None, version}
        and effect.device_class in {None, traits.kind.name}
        and share(seed, traits.number, "effect", place) < effect.share
    )
