"""How two versions differ that devices were split between, by class and over all classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.domain.judging.compare import Group, Interval, contrast, group
from orchestrator.domain.judging.figures import DeviceFigures
from orchestrator.domain.judging.metrics import Readings, changes, standings
from orchestrator.domain.judging.wording import in_words
from schemas.experiment import ArmName, Difference, ExperimentSpec
from schemas.gates import RATIOS, Metric

_LATENCY = frozenset({Metric.LATENCY_P50, Metric.LATENCY_P95, Metric.LATENCY_P99})


@dataclass(frozen=True, slots=True)
class _Side:
    """An arm's devices of a class. held: what is compared; level: what they did."""

    held: Group
    level: float
    devices: int


@dataclass(frozen=True, slots=True)
class _Class:
    """A class that is compared."""

    name: str
    a: _Side
    b: _Side

    @property
    def devices(self) -> int:
        return self.a.devices + self.b.devices


def differences(
    a: Sequence[DeviceFigures], b: Sequence[DeviceFigures], spec: ExperimentSpec
) -> tuple[Difference, ...]:
    """Compare two arms: for each metric over all classes, then class by class.

    What devices changed by against their own past is compared where at least half of those that
    count have one, for that takes out what they differ in anyway; else what they did. Chance
    made the arms, so either is fair. Intervals are Welch's t over devices, two-sided; over
    classes their differences are weighted by devices, so classes in unlike shares mislead nobody.

    Args:
        a: the one arm's devices.
        b: the other's.
        spec: what is compared, and how much it takes.
    """
    names = sorted({device.device_class for device in (*a, *b)})
    found: list[Difference] = []
    for metric in spec.metrics:
        each = [_class(metric, name, _of(name, a), _of(name, b), spec) for name in names]
        usable = [one for one in each if min(one.a.devices, one.b.devices) >= spec.min_devices]
        if len(each) != 1:
            found.append(_over_classes(metric, each, usable, spec.alpha))
        found += [_in_class(metric, one, spec, usable=one in usable) for one in each]
    return tuple(found)


def _of(name: str, arm: Sequence[DeviceFigures]) -> list[DeviceFigures]:
    return sorted((d for d in arm if d.device_class == name), key=lambda device: device.device)


def _class(
    metric: Metric,
    name: str,
    a: Sequence[DeviceFigures],
    b: Sequence[DeviceFigures],
    spec: ExperimentSpec,
) -> _Class:
    least = spec.min_inferences
    levels = [standings(metric, arm, least) for arm in (a, b)]
    changed = [changes(metric, arm, least) for arm in (a, b)]
    past = all(
        len(c) >= max(spec.min_devices, len(one) / 2)
        for c, one in zip(changed, levels, strict=True)
    )
    held = changed if past or metric is Metric.CLASS_MIX else levels
    sides = [_side(metric, h, one) for h, one in zip(held, levels, strict=True)]
    return _Class(name, sides[0], sides[1])


def _side(metric: Metric, held: Readings, levels: Readings) -> _Side:
    shown = held if metric is Metric.CLASS_MIX else levels
    level = float(np.mean(shown.values)) if len(shown) else math.nan
    return _Side(group(held.values, held.noise), level, len(held))


def _in_class(metric: Metric, one: _Class, spec: ExperimentSpec, *, usable: bool) -> Difference:
    interval = None
    if usable:
        half = spec.alpha / 2
        interval = contrast((one.b.held, one.a.held), (1.0, -1.0), half, half)
    levels = (one.a.level, one.b.level)
    return _difference(metric, one.name, interval, levels, (one.a.devices, one.b.devices))


def _over_classes(
    metric: Metric, each: Sequence[_Class], usable: Sequence[_Class], alpha: float
) -> Difference:
    devices = (sum(one.a.devices for one in usable), sum(one.b.devices for one in usable))
    if not usable:
        devices = (sum(one.a.devices for one in each), sum(one.b.devices for one in each))
        return _difference(metric, None, None, (math.nan, math.nan), devices)
    total = sum(one.devices for one in usable)
    weights = [one.devices / total for one in usable]
    interval = contrast(
        [side.held for one in usable for side in (one.b, one.a)],
        [sign * weight for weight in weights for sign in (1.0, -1.0)],
        alpha / 2,
        alpha / 2,
    )
    a = sum(w * one.a.level for w, one in zip(weights, usable, strict=True))
    b = sum(w * one.b.level for w, one in zip(weights, usable, strict=True))
    return _difference(metric, None, interval, (a, b), devices)


def _difference(
    metric: Metric,
    name: str | None,
    interval: Interval | None,
    levels: tuple[float, float],
    devices: tuple[int, int],
) -> Difference:
    value = low = high = math.nan
    better: ArmName | None = None
    if interval is not None:
        value, low, high = float(interval.value), float(interval.low), float(interval.high)
        if metric is not Metric.CLASS_MIX:  # a mix that moved may have moved for the better
            better = "b" if high < 0 else ("a" if low > 0 else None)
    if metric is Metric.ACCURACY:
        value, low, high = -value, -high, -low
    if metric in RATIOS:
        value, low, high = (math.exp(min(one, 700.0)) for one in (value, low, high))
    told = Difference(
        metric=metric,
        device_class=name,
        value=_finite(value),
        low=_finite(low),
        high=_finite(high),
        a=_finite(_natural(metric, levels[0])),
        b=_finite(_natural(metric, levels[1])),
        devices_a=devices[0],
        devices_b=devices[1],
        better=better,
    )
    return told.model_copy(update={"words": in_words(told)})


def _natural(metric: Metric, level: float) -> float:
    """A mean in the unit that people read."""
    if metric is Metric.ACCURACY:
        return 1 - level
    if metric in _LATENCY:
        return math.exp(min(level, 700.0)) / 1000
    return math.exp(min(level, 700.0)) if metric in RATIOS else level


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
