"""Which trials are kept: those that are sound, and of which no other is better in all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from schemas.budget import Budget
from schemas.isa import VNNI
from schemas.optimize import Optimize
from workers.optimization.point import Point, requires_of
from workers.optimization.searching.budgets import Figures, Known, budget_fault, budgets_of, fault

MOST_KEPT = 48
LATENCY_STEP = 1.05
"""Figures of time within this factor count as the same: two runs differ by as much."""

MEMORY_STEP_MB = 1.0

EVERY = ""
"""The budget of every variant, among those of classes: no class has this name."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The outcome.

    kept: best for an unknown device first; fp32 is always among them. front: the ids of
    those of which no other is better in every respect. rejected: reason by point. unmet:
    why a class's budget fits none, by class, and under ``EVERY`` why the job's own does.
    """

    kept: tuple[Known, ...]
    front: frozenset[str]
    rejected: Mapping[Point, str]
    unmet: Mapping[str, str] = field(default_factory=dict)


def select(known: Mapping[Point, Known], optimize: Optimize) -> Selection:
    """Choose among all that was tried. known: the reference, ``Point()``, is among them."""
    reference = known[Point()]
    faults = {p: fault(one, reference.figures, optimize) for p, one in known.items()}
    sound = [known[p] for p, reason in faults.items() if reason is None]
    front = [one for one in sound if not any(dominates(other, one) for other in sound)]
    chosen = {one.point: one for one in (*front, reference)}
    unmet: dict[str, str] = {}
    for name, budget in (*budgets_of(optimize).items(), (EVERY, optimize.budget)):
        if budget == Budget():
            continue
        fitting = [k for k in sound if k.figures and budget_fault(k.figures, budget) is None]
        if not fitting:
            unmet[name] = _why_unmet(sound, budget)
        elif not any(one.point in chosen for one in fitting):
            first = in_order(fitting, reference.figures)[0]
            chosen[first.point] = first
    kept = _capped(in_order(list(chosen.values()), reference.figures), optimize)
    rejected = {p: reason for p, reason in faults.items() if reason is not None}
    for one in sound:
        if one not in kept:
            other = next((o for o in front if dominates(o, one)), None)
            rejected[one.point] = (
                f"{other.point.id} is better or as good in accuracy, size, latency and memory"
                if other is not None
                else f"more than {MOST_KEPT} variants would be kept"
            )
    return Selection(tuple(kept), frozenset(k.point.id for k in front), rejected, unmet)


def in_order(found: Sequence[Known], reference: Figures | None) -> list[Known]:
    """Best for an unknown device first: what is not slower than FP32, the fastest first;
    FP32; then what is slower than it, which another kind of device may yet run faster.
    """  # noqa: D205 - one sentence
    limit = reference.cpu_ms if reference is not None else math.inf

    def rank(one: Known) -> tuple[int, float, str]:
        cpu = one.figures.cpu_ms if one.figures is not None else math.inf
        if one.point == Point():
            return 1, cpu, one.point.id
        return (0 if cpu <= limit else 2), cpu, one.point.id

    return sorted(found, key=rank)


def dominates(one: Known, other: Known) -> bool:
    """Whether one is at least as good in every respect, better in one, and runs wherever
    the other does.
    """  # noqa: D205 - one sentence
    if one.figures is None or other.figures is None or not _runs_wherever(one.point, other.point):
        return False
    pairs = list(zip(_respects(one), _respects(other), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _respects(one: Known) -> tuple[float, ...]:
    """Less is better. Measured figures come in steps, so that noise decides nothing."""
    figures = one.figures
    if figures is None:
        return ()
    time = round(math.log(max(figures.cpu_ms, 1e-6)) / math.log(LATENCY_STEP))
    memory = math.inf if figures.rss_mb is None else round(figures.rss_mb / MEMORY_STEP_MB)
    return (-(one.accuracy or 0.0), figures.compressed, figures.size, time, memory)


def _runs_wherever(one: Point, other: Point) -> bool:
    a, b = requires_of(one, "host"), requires_of(other, "host")
    arch = not a.arch or (bool(b.arch) and set(b.arch) <= set(a.arch))
    return arch and set(a.isa) <= set(b.isa)


def portable(point: Point) -> bool:
    """Whether every processor of the architecture runs it."""
    return VNNI not in requires_of(point, "host").isa


def _why_unmet(sound: Sequence[Known], budget: Budget) -> str:
    reasons = [
        f"{k.point.id}: {reason}"
        for k in sorted(sound, key=lambda k: k.figures.size if k.figures else math.inf)
        if k.figures and (reason := budget_fault(k.figures, budget)) is not None
    ]
    return "; ".join(reasons[:3]) or "nothing was made"


def _capped(ordered: list[Known], optimize: Optimize) -> list[Known]:
    """At most ``MOST_KEPT``: FP32, one for each class, and the first of the others."""
    if len(ordered) <= MOST_KEPT:
        return ordered
    needed = {Point()}
    for budget in budgets_of(optimize).values():
        fits = (k for k in ordered if k.figures and budget_fault(k.figures, budget) is None)
        if (first := next(fits, None)) is not None:
            needed.add(first.point)
    spare = MOST_KEPT - len(needed)
    others = [k.point for k in ordered if k.point not in needed][:spare]
    return [k for k in ordered if k.point in needed or k.point in others]
