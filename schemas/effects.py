"""Parts of a plan that would have no effect: whoever wrote them meant something else.

They are refused where a plan is made or edited, not where one is read: what is under way goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from schemas.gates import Gates, Metric
from schemas.pace import Urgency
from schemas.rollout import RolloutSpec

_PLAIN = RolloutSpec(model="any", version=1)


@dataclass(frozen=True, slots=True)
class Idle:
    """A part without effect. place: as in the plan's keys; hint: what would give it one."""

    place: tuple[str, ...]
    why: str
    hint: str


def idle_parts(spec: RolloutSpec, now: datetime) -> tuple[Idle, ...]:
    """The parts of a plan that are not what they are by default, and change nothing.

    Args:
        spec: the plan.
        now: the time, with a zone.
    """
    return (*_urgency(spec, now), *_pace(spec), *_attempts(spec), *_gates(spec))


def _urgency(spec: RolloutSpec, now: datetime) -> Iterator[Idle]:
    mode = spec.mode
    differs = spec.max_deferral_seconds != _PLAIN.max_deferral_seconds
    if differs and mode.urgency is not Urgency.SOFT:
        name = mode.urgency.value.replace("_", "-")
        why = f"no device may put it off for so long in mode {name}"
        yield Idle(("max_deferral_seconds",), why, "--max-deferral belongs to --mode soft")
    if mode.force_at is not None and mode.force_at <= now:
        why = f"{mode.force_at:%Y-%m-%d %H:%M} UTC is over, so it is forced from the start"
        yield Idle(("mode", "force_at"), why, "give a later time, or leave --force-at out")


def _pace(spec: RolloutSpec) -> Iterator[Idle]:
    pace, growth = spec.pace, spec.pace.growth
    if growth is None or growth.max_per_minute is None or pace.per_minute is None:
        return
    if growth.max_per_minute <= pace.per_minute:
        why = f"the rate begins at {pace.per_minute:g} a minute, so it cannot grow to this"
        yield Idle(
            ("pace", "growth", "max_per_minute"), why, "--max-per-minute is above --per-minute"
        )


def _attempts(spec: RolloutSpec) -> Iterator[Idle]:
    if spec.max_attempts == 1 and spec.retry_seconds != _PLAIN.retry_seconds:
        why = "there is no second attempt to wait for"
        yield Idle(("retry_seconds",), why, "--retry-after needs --attempts above 1")


def _gates(spec: RolloutSpec) -> Iterator[Idle]:
    gates, plain = spec.gates, Gates()
    if not gates.telemetry:
        for name in ("min_devices", "alpha", "baseline_seconds"):
            if getattr(gates, name) != getattr(plain, name):
                why = "no telemetry is compared, as there is no such gate"
                yield Idle(("gates", name), why, "name one, as in --gate accuracy=0.05")
    if spec.shadow is None and any(
        gate.metric is Metric.SHADOW_AGREEMENT for gate in gates.telemetry
    ):
        why = "shadow_agreement cannot be judged: nothing is tried as a shadow"
        yield Idle(("gates", "telemetry"), why, "say for how long too, as in --shadow 10m")
