"""How often the judge of waves is wrong, in simulated fleets whose truth is known.

For each size of cohort, number of device classes and effect of the new version (one class alone
has it): the share of waves that were promoted and aborted, with 95 % Wilson intervals, by the
judge and by what is done elsewhere: a threshold of 5 % on totals, and Mann-Whitney's U over all
inferences. All gates of ``STANDARD`` at their own tolerances, at four looks; once all of them are
required, as the figures have it, and once none, as they are where nobody says anything.

The figures are upper ends of intervals. ``false_abort`` is that of the worst cell without an
effect; its baseline is the aim, 1 %. ``promoted_5pt`` is that of a version that answers five
in a hundred more wrongly, at 30 devices a class, likewise. The other two have
what else is done as their baseline, in the same cell.

Run: ``python -m benchmarks.judge [--quick] [--json FILE]``
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks._harness import Figure, Options, Report, main, note
from benchmarks._judge_fleet import Effect, Waves
from benchmarks._judge_rules import Ends, Pair, mann_whitney, ours, thresholds
from schemas.gates import STANDARD, Gates

GATES = Gates(telemetry=tuple(one.model_copy(update={"required": True}) for one in STANDARD))
AIM = 0.01
NONE, WRONG_5 = "none", "accuracy 5 pt"
EFFECTS = {
    NONE: Effect(),
    "accuracy 2 pt": Effect(wrong=0.02),
    WRONG_5: Effect(wrong=0.05),
    "accuracy 10 pt": Effect(wrong=0.10),
    "errors 2 pt": Effect(errors=0.02),
    "errors 5 pt": Effect(errors=0.05),
    "errors 10 pt": Effect(errors=0.10),
    "p95 1.1x": Effect(latency=1.1),
    "p95 1.5x": Effect(latency=1.5),
    "p95 2x": Effect(latency=2.0),
}
PORTION = 200
"""Waves at once: more would not fit into a small machine's memory."""


@dataclass(frozen=True, slots=True)
class Cell:
    """An effect at so many devices of each class in each cohort."""

    effect: str
    devices: int
    classes: int


OURS, FULL = "ours", 30
RULES: dict[str, Callable[[Sequence[Pair]], Ends]] = {
    OURS: lambda pairs: ours(pairs, GATES),
    "not required": lambda pairs: ours(pairs, Gates()),
    "thresholds": thresholds,
    "mann-whitney": mann_whitney,
}

Tally = dict[str, tuple[int, int, int]]
"""By rule: waves, promoted, aborted."""


def measure(cell: Cell, waves: int) -> Tally:
    """Simulate waves and judge each by every rule."""
    rng = np.random.default_rng([list(EFFECTS).index(cell.effect), cell.devices, cell.classes])
    tally: Tally = {}
    for begin in range(0, waves, PORTION):
        pairs = _draw(rng, min(PORTION, waves - begin), cell)
        for name, rule in RULES.items():
            ends = rule(pairs)
            known = tally.get(name, (0, 0, 0))
            new = (len(ends.promoted), int(ends.promoted.sum()), int(ends.aborted.sum()))
            tally[name] = (known[0] + new[0], known[1] + new[1], known[2] + new[2])
    return tally


def _draw(rng: np.random.Generator, waves: int, cell: Cell) -> list[Pair]:
    """The classes of each wave; the first alone has the effect."""
    pairs = []
    for number in range(cell.classes):
        drawn = Waves(rng, waves)
        effect = EFFECTS[cell.effect] if number == 0 else Effect()
        pairs.append(Pair(drawn.side(cell.devices, effect), drawn.side(cell.devices, None)))
    return pairs


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, JASA 22, 1927)."""
    z, p = 1.96, hits / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (max(0.0, (middle - half) / (1 + z * z / n)), (middle + half) / (1 + z * z / n))


def run(options: Options) -> Report:
    """Measure every cell; with ``--quick`` those that the figures need, on few waves."""
    sizes: tuple[int, ...] = (10, FULL, 100)
    classes, waves = (1, 4), 2_000 * options.rounds
    effects = list(EFFECTS)
    if options.quick:
        sizes, waves, effects = (FULL,), 600, [NONE, WRONG_5]
    found: dict[Cell, Tally] = {}
    for cell in (Cell(e, d, c) for e in effects for d in sizes for c in classes):
        found[cell] = measure(cell, waves)
        note(_line(cell, found[cell]))
    return Report(
        _figures(found), {"waves": waves, "cells": [_told(*one) for one in found.items()]}
    )


def _figures(found: Mapping[Cell, Tally]) -> dict[str, Figure]:
    quiet = {cell: tally for cell, tally in found.items() if cell.effect == NONE}
    worse = {c: t for c, t in found.items() if c.effect == WRONG_5 and c.devices == FULL}

    def worst(cells: Mapping[Cell, Tally], rule: str, what: int) -> float:
        return max(wilson(tally[rule][what], tally[rule][0])[1] for tally in cells.values())

    aborted, promoted = worst(quiet, OURS, 2), worst(worse, OURS, 1)
    return {
        "false_abort": Figure("share", (aborted,), (AIM,)),
        "promoted_5pt": Figure("share", (promoted,), (AIM,)),
        "false_abort_vs_mann_whitney": Figure(
            "share", (aborted,), (worst(quiet, "mann-whitney", 2),)
        ),
        "false_abort_vs_thresholds": Figure("share", (aborted,), (worst(quiet, "thresholds", 2),)),
    }


def _told(cell: Cell, tally: Tally) -> dict[str, object]:
    told: dict[str, object] = {
        "effect": cell.effect,
        "devices": cell.devices,
        "classes": cell.classes,
    }
    for rule, (waves, promoted, aborted) in tally.items():
        told[rule] = {
            "promoted": [promoted / waves, *wilson(promoted, waves)],
            "aborted": [aborted / waves, *wilson(aborted, waves)],
        }
    return told


def _line(cell: Cell, tally: Tally) -> str:
    cells = []
    for rule, (waves, promoted, aborted) in tally.items():
        low, high = wilson(aborted, waves)
        cells.append(
            f"{rule}: promoted {100 * promoted / waves:5.1f} %"
            f" aborted {100 * aborted / waves:5.1f} % ({100 * low:.1f}-{100 * high:.1f})"
        )
    head = f"{cell.effect:15} {cell.devices:4} devices x {cell.classes}"
    return f"{head}  " + "  ".join(cells)


if __name__ == "__main__":
    main(run, what="Waves judged wrongly, in simulated fleets", rounds=1)
