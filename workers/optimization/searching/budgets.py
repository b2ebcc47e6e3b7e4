"""What a trial gave, held against what a variant may cost: pure, and every refusal in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.budget import Budget
from schemas.optimize import Optimize
from schemas.paired import Paired, paired
from workers.optimization.point import Point

MEGABYTE = 1e6
MOST_SAMPLES = 10_000_000

CHANCE = 0.05
"""Of the time of a run: what two measurements of one file differ by, and more."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a file costs on the machine of the job.

    size, compressed: bytes. cpu_ms: median CPU time of single inferences, by which variants
    are ranked; p50_ms: their wall time, which budgets limit. rss_mb: what it adds to its
    process, MiB; None: not known.
    """

    size: int
    compressed: int
    cpu_ms: float
    p50_ms: float
    rss_mb: float | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What a trial gave.

    accuracy: on the validation split, 0..1. paired: against the unpruned net in FP32 there.
    figures: None as long as nobody measured them. failed: why there is nothing.
    """

    point: Point
    accuracy: float | None = None
    paired: Paired | None = None
    figures: Figures | None = None
    failed: str | None = None


def accuracy_fault(found: Paired, most: float) -> str | None:
    """Why a drop of accuracy is too large, or not surely small enough; None when it is.

    most: the margin of the non-inferiority test, 0..1.
    """
    if found.high <= most:
        return None
    sure = f"{found.confidence:.0%}".replace("%", " %")
    text = (
        f"accuracy on validation {_moved(found.drop)}, with {sure} confidence {{}}by at most "
        f"{found.high:.4f}; allowed is {most:.4f} "
        f"(n={found.n}: {found.lost} lost, {found.won} won)"
    ).format("" if found.drop > 0 else "it fell ")
    if found.drop >= most:
        return text
    needed = settling(found, most)
    return f"{text}; about {needed} samples with the same drop would settle it" if needed else text


def _moved(drop: float) -> str:
    if drop > 0:
        return f"fell by {drop:.4f}"
    return f"rose by {-drop:.4f}" if drop < 0 else "stayed the same"


def too_few(n: int, optimize: Optimize) -> str | None:
    """What to say where n samples cannot show even equal answers to be within the margin."""
    if not hopeless(n, optimize):
        return None
    most = optimize.max_accuracy_drop
    needed = settling(paired(n, 0, 0, optimize.confidence), most)
    more = f"about {needed} would do" if needed else "no number of them would do"
    return (
        f"{n} validation samples are too few to show that a variant loses at most {most:g}, "
        f"even one that answers all of them alike: {more}; hold out more, or allow a larger "
        "optimize.max_accuracy_drop"
    )


def settling(found: Paired, most: float) -> int | None:
    """About how many samples, lost and won in the same shares, would show it to be within."""

    def within(n: int) -> bool:
        lost, won = (round(part * n / found.n) for part in (found.lost, found.won))
        return paired(n, lost, won, found.confidence).high <= most

    high = found.n
    while not within(high):
        high *= 2
        if high > MOST_SAMPLES:
            return None
    low = high // 2
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if within(middle) else (middle, high)
    return high


def hopeless(n: int, optimize: Optimize) -> bool:
    """Whether n samples are too few to show anything to be within the margin."""
    return paired(n, 0, 0, optimize.confidence).high > optimize.max_accuracy_drop


def budget_fault(figures: Figures, budget: Budget) -> str | None:
    """Which limit a file passes, or None."""
    mb = figures.size / MEGABYTE
    if budget.max_size_mb is not None and mb > budget.max_size_mb:
        return f"its file has {mb:.3g} MB, allowed are {budget.max_size_mb:.3g}"
    if budget.max_latency_ms is not None and figures.p50_ms > budget.max_latency_ms:
        return (
            f"one inference takes {figures.p50_ms:.3g} ms, allowed are {budget.max_latency_ms:.3g}"
        )
    if budget.max_rss_mb is not None and figures.rss_mb is None:
        return "its memory is not known"
    if budget.max_rss_mb is not None and (figures.rss_mb or 0.0) > budget.max_rss_mb:
        return f"it takes {figures.rss_mb:.3g} MiB of memory, allowed are {budget.max_rss_mb:.3g}"
    return None


def fault(known: Known, reference: Figures | None, optimize: Optimize) -> str | None:
    """Why a trial is not kept, or None. reference: of the unpruned net in FP32."""
    if known.failed is not None:
        return known.failed
    if known.point == Point():
        return None
    if known.paired is None:
        return "its accuracy is not known"
    if (reason := accuracy_fault(known.paired, optimize.max_accuracy_drop)) is not None:
        return reason
    if known.figures is None:
        return "what it costs is not known"
    if reference is not None and _worse(known.figures, reference):
        return (
            f"it is no faster than fp32 ({known.figures.cpu_ms:.3g} ms of CPU against "
            f"{reference.cpu_ms:.3g}) and no smaller"
        )
    return budget_fault(known.figures, optimize.budget)


def _worse(one: Figures, reference: Figures) -> bool:
    least = 1 - CHANCE
    return one.cpu_ms > least * reference.cpu_ms and one.size > least * reference.size


def budgets_of(optimize: Optimize) -> Mapping[str, Budget]:
    """The budget of each class, with what it leaves open filled from that of all."""
    return {name: one.merged(optimize.budget) for name, one in optimize.classes.items()}
