"""What a simulated device measures: windows drawn from the distributions of its profile.

A window follows from the seed, the device, the model, the version and the window's number alone,
whatever the network does meanwhile.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from orchestrator.simulator.draws import generator, share
from orchestrator.simulator.profile import Effect, Traffic
from orchestrator.simulator.traits import Traits
from schemas.telemetry import MAX_BUCKET

_LOWER, _UPPER = 5, 5
"""Bins of confidence below and above one half."""

_LEAST_US = 0.001
"""Zero has no logarithm to draw by."""

_PER_DOUBLING = 8
"""Buckets of latency for a factor of two (``schemas.telemetry``)."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Level:
    """What devices of a class do on average with one version."""

    rate: float
    accuracy: float
    labelled: float
    error_rate: float
    low_confidence: float
    median_us: float
    spread: float
    labels: tuple[float, ...]
    rss_mib: int
    energy_mj: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """A window's figures, with counts by bucket or class where there are several."""

    n: int
    errors: int = 0
    labelled: int = 0
    correct: int = 0
    latency: dict[int, int] = field(default_factory=dict)
    confidence: tuple[int, ...] = ()
    classes: dict[int, int] = field(default_factory=dict)
    rss_mib: int = 0
    energy_mj: int = 0


def level(traffic: Traffic, effects: Sequence[Effect]) -> Level:
    """A class's traffic with what a version changes of it."""
    labels = np.array(traffic.labels) / sum(traffic.labels)
    accuracy, errors, low = traffic.accuracy, traffic.error_rate, traffic.low_confidence
    latency, rss, energy = traffic.latency_ms, float(traffic.rss_mib), traffic.energy_mj
    for effect in effects:
        accuracy += effect.accuracy
        errors += effect.error_rate
        low += effect.low_confidence
        latency, rss = latency * effect.latency, rss * effect.rss
        energy *= effect.energy
        labels = labels * (1 - effect.class_shift)
        labels[0] += effect.class_shift
    return Level(
        rate=traffic.rate,
        accuracy=_clip(accuracy),
        labelled=traffic.labelled,
        error_rate=_clip(errors),
        low_confidence=_clip(low),
        median_us=latency * 1000,
        spread=traffic.latency_spread,
        labels=tuple(float(one) for one in labels),
        rss_mib=round(rss),
        energy_mj=energy,
    )


def window(
    level: Level, traits: Traits, *, seconds: float, at: float, seed: int, key: tuple[str, int, int]
) -> Drawn:
    """Draw one window.

    Args:
        level: of the class and the version.
        traits: of the device.
        seconds: the window's length.
        at: seconds since 1970 at its end, for the drift.
        seed: of the fleet.
        key: model, version, and the window's number.
    """
    rng = generator(seed, traits.number, zlib.crc32(key[0].encode()), *key[1:])
    traffic = traits.kind.traffic
    drift = _drift(traffic, traits.number, at, seed)
    n = int(rng.poisson(level.rate * seconds))
    errors = int(rng.binomial(n, level.error_rate))
    done = n - errors
    labelled = int(rng.binomial(done, level.labelled))
    right = _clip(level.accuracy + traffic.spread * traits.ability[0] - drift)
    slower = math.log2(max(0.1, 1 + traffic.spread * traits.ability[1]) * max(0.1, 1 + drift))
    shift = round(slower * _PER_DOUBLING)
    first, shares = _buckets(max(_LEAST_US, round(level.median_us, 3)), level.spread)
    return Drawn(
        n=n,
        errors=errors,
        labelled=labelled,
        correct=int(rng.binomial(labelled, right)),
        latency=_latency(rng.multinomial(done, shares), first + shift),
        confidence=tuple(map(int, rng.multinomial(done, _confidence(level.low_confidence)))),
        classes=_counted(rng.multinomial(done, np.array(level.labels)), 0),
        rss_mib=level.rss_mib,
        energy_mj=round(level.energy_mj * done),
    )


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def _drift(traffic: Traffic, number: int, at: float, seed: int) -> float:
    """By how much all goes worse just now: the device's own wave and that of its class."""
    drift = traffic.drift
    if not (drift.own or drift.common):
        return 0.0
    turn = 2 * math.pi * at / drift.period_seconds
    phase = 2 * math.pi * share(seed, number, "phase")
    return drift.own * math.sin(turn + phase) + drift.common * math.sin(turn)


@lru_cache(maxsize=4096)
def _buckets(median_us: float, spread: float) -> tuple[int, Floats]:
    """A log-normal latency as shares of buckets, from the first one that has any."""
    middle = math.log2(median_us) * _PER_DOUBLING
    width = spread / math.log(2) * _PER_DOUBLING
    if width <= 0:
        return max(0, math.ceil(middle - 1e-9)), np.ones(1)
    first = max(0, math.floor(middle - 5 * width))
    last = min(MAX_BUCKET, math.ceil(middle + 5 * width))
    first = min(first, last)
    upper = [math.erf((b - middle) / width / math.sqrt(2)) for b in range(first, last + 1)]
    shares = np.diff(np.array([-1.0, *upper])) / 2
    return first, shares / shares.sum() if shares.sum() > 0 else np.ones(1)


@lru_cache(maxsize=1024)
def _confidence(low: float) -> Floats:
    """Ten bins: what is unsure evenly, what is sure the more the surer."""
    sure = np.arange(1, _UPPER + 1, dtype=np.float64) ** 2
    return np.concatenate([np.full(_LOWER, low / _LOWER), sure / sure.sum() * (1 - low)])


def _latency(counts: NDArray[np.int64], first: int) -> dict[int, int]:
    found: dict[int, int] = {}
    for bucket, count in _counted(counts, first).items():
        place = min(MAX_BUCKET, max(0, bucket))
        found[place] = found.get(place, 0) + count
    return found


def _counted(counts: NDArray[np.int64], first: int) -> dict[int, int]:
    return {first + int(place): int(counts[place]) for place in np.flatnonzero(counts)}
