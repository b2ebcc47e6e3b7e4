"""Whether a new model may stay: decided on the device alone, from what it measured.

No clock is read here and no network is asked. Time is what passed by a steady clock while the
model served, so that setting the date neither ends a probation nor prolongs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from schemas.errors import DeviceCause
from schemas.rollout import Probation

MIN_TIMES = 10
"""Inferences whose median is compared; it holds while fewer than half of them were disturbed."""

LEAST_TIMES = 3
"""Likewise once ``max_seconds`` are over: what is slow enough gives no more."""

NOISE_SECONDS = 0.0005
"""No model is too slow by less than this: below it, what is measured is the scheduler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Wall time of inferences: how many of the new model, their median in seconds.

    before: that of the model before, as this device measured it; None where it has not.
    """

    n: int
    median: float
    before: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRun:
    """How the golden vectors ended in the runtime. detail: what is wrong; None when they passed."""

    cause: DeviceCause = DeviceCause.GOLDEN_MISMATCH
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is known of a model on probation.

    n, errors: inferences since this start of the agent, and failed ones among them.
    elapsed: seconds on probation, over all starts. grown_mb: by how much the agent's memory has
    lastingly grown since before the swap; None where that is not known (yet). golden: once run.
    """

    n: int = 0
    errors: int = 0
    elapsed: float = 0.0
    times: Times | None = None
    grown_mb: float | None = None
    golden: GoldenRun | None = None


@dataclass(frozen=True, slots=True)
class Passed:
    """It may stay."""

    detail: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It must go."""

    cause: DeviceCause
    detail: str


class Waiting(Enum):
    """What a verdict waits for: more figures, or a run of the golden vectors."""

    FIGURES = "figures"
    GOLDEN = "golden"


Verdict: TypeAlias = Passed | Failed | Waiting


def judge(rules: Probation, seen: Figures) -> Verdict:
    """Judge: failed as soon as it cannot pass any more, passed once it has served enough.

    Args:
        rules: of the assignment.
        seen: what was measured so far.
    """
    late = seen.elapsed >= rules.max_seconds
    served = seen.n >= rules.min_inferences
    failed = _errors(rules, seen) or _memory(rules, seen)
    if failed is None and (served or late):
        failed = _time(rules, seen, LEAST_TIMES if late else MIN_TIMES)
    if failed is not None:
        return failed
    if served and (late or _measured(rules, seen)):
        return Passed(f"{seen.n} inferences served, {seen.errors} failed")
    return _without_enough(rules, seen) if late else Waiting.FIGURES


def _without_enough(rules: Probation, seen: Figures) -> Verdict:
    """The time is over, and too few have asked: the golden vectors decide."""
    if seen.errors > rules.max_error_rate * seen.n:
        return _too_many_errors(rules, seen)
    few = f"{seen.n} of {rules.min_inferences} inferences in {rules.max_seconds:g} s"
    match seen.golden:
        case None:
            return Waiting.GOLDEN
        case GoldenRun(detail=None):
            return Passed(f"{few}, and the golden vectors passed")
        case GoldenRun(cause=cause, detail=detail):
            return Failed(cause, f"{few}, and then: {detail}")


def _measured(rules: Probation, seen: Figures) -> bool:
    """Whether what the rules ask for, beside inferences, has been measured."""
    comparable = rules.max_latency_ratio is not None and _before(seen) is not None
    timed = not comparable or (seen.times is not None and seen.times.n >= MIN_TIMES)
    return timed and (rules.max_memory_mb is None or seen.grown_mb is not None)


def _before(seen: Figures) -> float | None:
    return None if seen.times is None else seen.times.before


def _errors(rules: Probation, seen: Figures) -> Failed | None:
    if seen.errors > rules.max_error_rate * max(seen.n, rules.min_inferences):
        return _too_many_errors(rules, seen)
    return None


def _too_many_errors(rules: Probation, seen: Figures) -> Failed:
    most = f"at most {rules.max_error_rate:.1%} may"
    detail = f"{seen.errors} of {seen.n} inferences failed ({most})"
    return Failed(DeviceCause.PROBATION_FAILED, detail)


def _memory(rules: Probation, seen: Figures) -> Failed | None:
    grown, most = seen.grown_mb, rules.max_memory_mb
    if grown is None or most is None or grown <= most:
        return None
    detail = f"the agent's memory grew by {grown:.0f} MiB with it (at most {most} may be)"
    return Failed(DeviceCause.OUT_OF_MEMORY, detail)


def _time(rules: Probation, seen: Figures, enough: int) -> Failed | None:
    times, ratio = seen.times, rules.max_latency_ratio
    if times is None or times.before is None or ratio is None or times.n < enough:
        return None
    before = times.before
    if times.median <= max(ratio * before, before + NOISE_SECONDS):
        return None
    detail = (
        f"an inference takes {1000 * times.median:.3g} ms, {times.median / before:.1f} times the"
        f" {1000 * before:.3g} ms of the model before (at most {ratio:g} times may be)"
        if before > 0
        else f"an inference takes {1000 * times.median:.3g} ms, the model before took no time"
    )
    return Failed(DeviceCause.TOO_SLOW, detail)
