"""What becomes of an update on a simulated device: decided by the profile, before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.simulator.draws import share
from orchestrator.simulator.profile import Effect, Profile
from orchestrator.simulator.traffic import Level, level
from orchestrator.simulator.traits import Traits
from schemas.errors import DeviceCause
from schemas.rollout import Assignment


@dataclass(frozen=True, slots=True)
class Outcome:
    """An update's fate.

    deferral: seconds that the device puts it off where it may. pulls: it fetches every chunk.
    fails: it ends before the swap. condemned: why its probation ends badly; None where it does
    not. dead: once it said that the version serves, the device is gone. agreement: the share of a
    shadow's answers that are the active model's.
    """

    level: Level
    bytes_per_second: float
    probation_seconds: float
    deferral: float = 0.0
    pulls: bool = False
    fails: bool = False
    condemned: DeviceCause | None = None
    dead: bool = False
    agreement: float = 1.0


_ALIKE = 0.98
"""Share of answers in which two good versions agree."""


def happens(
    name: str, effects: Sequence[Effect], traits: Traits, of: tuple[object, ...], seed: int
) -> bool:
    """Whether what an effect gives a chance befalls a device.

    Args:
        name: of the effect's field.
        effects: that the version has on the device.
        traits: of the device.
        of: model, version, and whatever else tells one draw from another.
        seed: of the fleet.
    """
    spared = 1.0
    for effect in effects:
        spared *= 1 - getattr(effect, name)
    return share(seed, traits.number, name, *of) < 1 - spared


def outcome(
    profile: Profile,
    traits: Traits,
    effects: Sequence[Effect],
    assignment: Assignment,
    before: Level | None,
    seed: int,
) -> Outcome:
    """Decide.

    Args:
        profile: of the fleet.
        traits: of the device.
        effects: that the version has on it.
        assignment: the offer.
        before: what the device does with the version that it serves; None where it serves none.
        seed: of the fleet.
    """
    after = level(traits.kind.traffic, effects)
    model, version = assignment.model, assignment.version

    def befalls(name: str, *of: object) -> bool:
        return happens(name, effects, traits, (model, version, *of), seed)

    defers = share(seed, traits.number, "defer") < profile.work.defer
    rules = assignment.probation
    return Outcome(
        level=after,
        bytes_per_second=profile.work.bytes_per_second / traits.slowness,
        probation_seconds=rules.min_inferences / after.rate,
        deferral=profile.work.defer_seconds if defers else 0.0,
        pulls=share(seed, traits.number, "pull", version) < profile.pull,
        fails=befalls("fail", assignment.attempt),
        condemned=_condemned(assignment, after, before, crashes=befalls("crash")),
        dead=befalls("dead"),
        agreement=_agreement(after, before),
    )


def _condemned(
    assignment: Assignment, after: Level, before: Level | None, *, crashes: bool
) -> DeviceCause | None:
    """What a device finds by itself (``Probation``), from what is to be expected of the version."""
    rules = assignment.probation
    if crashes:
        return DeviceCause.BOOT_LOOP
    if after.error_rate > rules.max_error_rate:
        return DeviceCause.PROBATION_FAILED
    slower = None if before is None else after.median_us / before.median_us
    if None not in {slower, rules.max_latency_ratio} and slower > rules.max_latency_ratio:  # type: ignore[operator]
        return DeviceCause.TOO_SLOW
    return None


def _agreement(after: Level, before: Level | None) -> float:
    if before is None:
        return _ALIKE
    moved = sum(abs(a - b) for a, b in zip(after.labels, before.labels, strict=True)) / 2
    return max(0.0, _ALIKE - abs(after.accuracy - before.accuracy) - moved)
