"""Simulated waves with a known truth, as arrays: (waves, devices), many waves at once.

Each device has rates and a speed of its own, which are those of all its inferences, so that these
are correlated within it. Between its past and its present both cohorts drift together, each
device drifts by itself, and a new version suits some devices better than others though it be
no worse on the whole. How much a device infers is spread over more than an order of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from orchestrator.domain.judging.figures import DeviceFigures, Span
from schemas.telemetry import GAMMA

LOOKS = (0.125, 0.25, 0.5, 1.0)
"""Shares of the evidence that are there at each look."""

CLASSES = 10
SILENT = 0.01
LABELLED = 0.3
QUANTILE_NOISE = 0.35 * math.sqrt(0.95 * 0.05) / 0.1031
"""Of the logarithm of a p95 of one sample; latency's own spread is 0.35, 0.1031 the density."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Effect:
    """What is worse about the version: points of errors or wrong answers, a factor of latency."""

    errors: float = 0.0
    wrong: float = 0.0
    latency: float = 1.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What devices counted in a span. p95: its bucket. level: the logarithm of their latency."""

    n: Ints
    errors: Ints
    labelled: Ints
    wrong: Ints
    unsure: Ints
    classes: Ints
    p95: Ints
    level: Floats


@dataclass(frozen=True, slots=True)
class Side:
    """A cohort: its past, and what there is at each look."""

    pre: Counts
    post: tuple[Counts, ...]
    silent: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Truth:
    errors: Floats
    wrong: Floats
    unsure: Floats
    mix: Floats
    latency: Floats


class Waves:
    """Draws waves of one device class.

    Args:
        rng: where chance comes from.
        waves: how many at once.
    """

    def __init__(self, rng: np.random.Generator, waves: int) -> None:
        self._rng = rng
        self._waves = waves
        self._drift = [rng.normal(0, 0.3, (waves, 1)) for _ in range(3)]
        self._slower = rng.normal(0, 0.1, (waves, 1))
        self._mix = np.log(rng.dirichlet(np.full(CLASSES, 2.0), waves) + 1e-3)[:, None, :]
        self._mixed = rng.normal(0, 0.15, (waves, 1, CLASSES))

    def side(self, devices: int, effect: Effect | None) -> Side:
        """A cohort; the control has no effect, and its version fits all as it did (None)."""
        rng, shape = self._rng, (self._waves, devices)
        base = [
            special.logit(p) + rng.normal(0, s, shape)
            for p, s in ((0.01, 0.5), (0.08, 0.4), (0.1, 0.4))
        ]
        mix = self._mix + rng.normal(0, 0.3, (*shape, CLASSES))
        speed = math.log(8000.0) + rng.normal(0, 0.4, shape)
        busy = np.log(1.5) * (rng.random((2, *shape)) < 0.05)
        errors, wrong, unsure = (special.expit(one) for one in base)
        before = _Truth(errors, wrong, unsure, _mixed(mix), speed + busy[0])
        fits = 0.0 if effect is None else 0.15
        own = [rng.normal(0, 0.2, shape) + rng.normal(0, fits, shape) for _ in range(3)]
        rates = [special.expit(b + d + o) for b, d, o in zip(base, self._drift, own, strict=True)]
        speed = speed + self._slower + rng.normal(0, 0.08, shape) + busy[1]
        if effect is not None:
            uneven = rng.gamma(10.0, 0.1, shape)  # mean 1
            rates[0] = rates[0] + effect.errors * uneven
            rates[1] = rates[1] + effect.wrong * uneven
            speed = speed + math.log(effect.latency) + rng.normal(0, 0.03, shape)
        mix = mix + self._mixed + rng.normal(0, 0.15, mix.shape)
        rates = [np.clip(rate, 0.0, 1.0) for rate in rates]
        after = _Truth(rates[0], rates[1], rates[2], _mixed(mix), speed)
        silent = rng.random(shape) < SILENT
        return Side(self._past(before), tuple(self._present(after, silent)), silent)

    def _past(self, truth: _Truth) -> Counts:
        n = np.exp(self._rng.normal(math.log(1500), 0.8, truth.errors.shape)).astype(np.int64) + 1
        return next(iter(self._counted(truth, [n])))

    def _present(self, truth: _Truth, silent: NDArray[np.bool_]) -> Iterator[Counts]:
        n = np.exp(self._rng.normal(math.log(400), 0.8, truth.errors.shape))
        n = np.where(silent, 0, n)
        reached = [(n * share).astype(np.int64) for share in LOOKS]
        return self._counted(truth, reached)

    def _counted(self, truth: _Truth, reached: list[Ints]) -> Iterator[Counts]:
        """Counts after so many inferences each time: what was there stays, what is new is drawn."""
        rng, shape = self._rng, truth.errors.shape
        last = np.zeros(shape, np.int64)
        errors, labelled, wrong, unsure = (np.zeros(shape, np.int64) for _ in range(4))
        classes = np.zeros((*shape, CLASSES), np.int64)
        noise = np.zeros(shape)
        for n in reached:
            new = n - last
            failed = rng.binomial(new, truth.errors)
            known = rng.binomial(new - failed, LABELLED)
            errors, labelled = errors + failed, labelled + known
            wrong = wrong + rng.binomial(known, truth.wrong)
            unsure = unsure + rng.binomial(new, truth.unsure)
            classes = classes + rng.multinomial(new, truth.mix)
            noise = noise + rng.normal(0, 1, shape) * np.sqrt(new)
            level = truth.latency + QUANTILE_NOISE * noise / np.maximum(n, 1)
            bucket = np.clip(np.round(level / math.log(GAMMA) + 0.5), 1, 256).astype(np.int64)
            yield Counts(n, errors, labelled, wrong, unsure, classes, bucket, truth.latency)
            last = n


def _mixed(logs: Floats) -> Floats:
    found: Floats = special.softmax(logs, axis=-1)
    # Sums a hair above 1, by rounding, are refused by the generator.
    return found * (1 - 1e-12)


def figures(side: Side, wave: int, look: int, name: str, cohort: str) -> list[DeviceFigures]:
    """One wave's devices of a class as the judge takes them."""
    return [
        DeviceFigures(
            f"{name}-{cohort}-{device:04}",
            name,
            _span(side.pre, wave, device),
            _span(side.post[look], wave, device),
            silent=bool(side.silent[wave, device]),
        )
        for device in range(side.silent.shape[1])
    ]


def _span(counts: Counts, wave: int, device: int) -> Span:
    n, at = int(counts.n[wave, device]), (wave, device)
    labelled, unsure = int(counts.labelled[at]), int(counts.unsure[at])
    return Span(
        n=n,
        errors=int(counts.errors[at]),
        labelled=labelled,
        correct=labelled - int(counts.wrong[at]),
        confidence=(unsure, 0, 0, 0, 0, 0, 0, 0, 0, n - unsure),
        latency={int(counts.p95[at]): n},
        classes={k: int(c) for k, c in enumerate(counts.classes[at]) if c},
    )
