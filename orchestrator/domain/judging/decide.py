"""What a comparison shows: harm, that there is none to speak of, or neither.

As in ``compare``, arrays may have further axes before that of the devices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.domain.judging.compare import Array, Interval, group, interval

MEANINGFUL = 0.5
"""Of ``max_worse``: a smaller difference fails no wave however sure it is, a larger passes none."""

MOST = 2.0
"""Times ``max_worse``: so far from the control's median a device counts when harm is looked for."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Values of devices along the last axis, NaN where one is not counted, and their noise."""

    values: Array
    noise: Array


@dataclass(frozen=True, slots=True)
class Shown:
    """What a comparison shows. control: the mean there, NaN without one."""

    interval: Interval
    control: Array
    harm: NDArray[np.bool_]
    harmless: NDArray[np.bool_]


def decide(
    treated: Cohort,
    control: Cohort | None,
    worse: float,
    *,
    harm: Array | float,
    harmless: Array | float,
) -> Shown:
    """Compare what devices of two cohorts got worse by.

    Harm is shown where the lower limit is above 0 and the difference itself is at least half of
    what is tolerated; without a control only where the lower limit is above all that is
    tolerated, for what changed for everybody meanwhile is not known. That it is harmless is shown
    where the upper limit is below what is tolerated and, beside a control, the difference
    below half of it: what was harm a moment ago then does not pass because one device got worse
    still and so spread the values.

    For harm, values farther than twice the tolerance from the control's median are moved there. Two
    cohorts that are alike stay alike by it, and one device that reports nonsense, or is hit
    harder than the others, does not hide by its spread what they all show. For harmlessness nothing
    is moved: there, spread keeps a wave from passing, as it should.

    Args:
        treated: of the wave.
        control: of the control cohort; None: there is none.
        worse: what is tolerated, in the unit of the values.
        harm: the chance to see harm where there is none.
        harmless: the chance to see none where it is as much as ``worse``.
    """
    raw = _between(treated, control, harm, harmless)
    if control is None:
        held = _between(
            _held(treated, np.zeros(raw.value.shape), MOST * worse), None, harm, harmless
        )
    else:
        middle = _median(control.values)
        cohorts = [_held(one, middle, MOST * worse) for one in (treated, control)]
        held = _between(cohorts[0], cohorts[1], harm, harmless)
    low = np.minimum(held.low, raw.value)
    shown = Interval(raw.value, low, raw.high)
    if control is None:
        nothing = np.full(raw.value.shape, np.nan)
        return Shown(shown, nothing, low > worse, raw.high < worse)
    small = raw.value < MEANINGFUL * worse
    mean = group(control.values, control.noise).mean
    return Shown(shown, mean, (low > 0) & ~small, (raw.high < worse) & small)


def _between(
    treated: Cohort, control: Cohort | None, low: Array | float, high: Array | float
) -> Interval:
    other = None if control is None else group(control.values, control.noise)
    return interval(group(treated.values, treated.noise), other, low, high)


def _held(cohort: Cohort, middle: Array, reach: float) -> Cohort:
    near = np.clip(cohort.values, (middle - reach)[..., None], (middle + reach)[..., None])
    return Cohort(near, cohort.noise)


def _median(values: Array) -> Array:
    """Of those that count, along the last axis; 0 of none."""
    n = np.isfinite(values).sum(axis=-1, keepdims=True)
    if not values.shape[-1]:
        return np.zeros(values.shape[:-1])
    ordered = np.sort(values, axis=-1)  # NaN comes last
    lower = np.take_along_axis(ordered, np.maximum(n - 1, 0) // 2, -1)
    upper = np.take_along_axis(ordered, np.minimum(n // 2, np.maximum(n - 1, 0)), -1)
    return np.where(n > 0, (lower + upper) / 2, 0.0)[..., 0]
