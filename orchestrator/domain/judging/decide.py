"""What a comparison shows: harm, that there is none to speak of, or neither.

As in ``compare``, arrays may have further axes before that of the devices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.domain.judging.closure import closed_high, closed_low
from orchestrator.domain.judging.compare import Array, Group, Interval, group
from orchestrator.domain.judging.counting import Counting
from schemas.gates import MEANINGFUL

MOST = 2.0
"""Times ``max_worse``: so far from the control's median a device counts when harm is looked for."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Values of devices along the last axis, NaN where one is not counted, and their noise.

    counting: of rates, what the noise comes from; None where it is the same whatever the values.
    """

    values: Array
    noise: Array
    counting: Counting | None = None


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
    below half of it.

    For harm, values farther than twice the tolerance from the control's median are moved there. Two
    cohorts that are alike stay alike by it, and one device that reports nonsense does not make
    harm. The noise that counting alone gives is there what it would be if the version were no
    worse than allowed, for what is seen of it grows with the errors. For harmlessness nothing is
    moved, and the noise is what is seen. The limits are those of ``closed_low`` and
    ``closed_high``: neither ever falls when a device gets worse, nor does the difference. So what
    failed fails still, and what did not pass does not come to pass.

    Args:
        treated: of the wave.
        control: of the control cohort; None: there is none.
        worse: what is tolerated, in the unit of the values.
        harm: the chance to see harm where there is none.
        harmless: the chance to see none where it is as much as ``worse``.
    """
    other = None if control is None else group(control.values, control.noise)
    own = group(treated.values, treated.noise)
    value = own.mean if other is None else own.mean - other.mean
    low = np.minimum(_held_low(treated, control, worse, harm), value)
    high = np.maximum(closed_high(treated.values, own.least, other, harmless), value)
    shown = Interval(value, low, high)
    if other is None:
        nothing = np.full(value.shape, np.nan)
        bad = low > worse
        return Shown(shown, nothing, bad, (high < worse) & ~bad)
    small = value < MEANINGFUL * worse
    return Shown(shown, other.mean, (low > 0) & ~small, (high < worse) & small)


def _held_low(treated: Cohort, control: Cohort | None, worse: float, alpha: Array | float) -> Array:
    shape, reach = treated.values.shape[:-1], MOST * worse
    middle = np.zeros(shape) if control is None else _median(control.values)
    near = _held(treated.values, middle, reach)
    other: Group | None = None
    if control is not None:
        other = group(_held(control.values, middle, reach), control.noise)
    allowed = np.full(shape, worse) if other is None else other.mean
    noise = treated.noise if treated.counting is None else treated.counting.noise(allowed)
    return closed_low(near, group(near, noise).least, other, alpha)


def _held(values: Array, middle: Array, reach: float) -> Array:
    return np.clip(values, (middle - reach)[..., None], (middle + reach)[..., None])


def _median(values: Array) -> Array:
    """Of those that count, along the last axis; 0 of none."""
    n = np.isfinite(values).sum(axis=-1, keepdims=True)
    if not values.shape[-1]:
        return np.zeros(values.shape[:-1])
    ordered = np.sort(values, axis=-1)  # NaN comes last
    lower = np.take_along_axis(ordered, np.maximum(n - 1, 0) // 2, -1)
    upper = np.take_along_axis(ordered, np.minimum(n // 2, np.maximum(n - 1, 0)), -1)
    return np.where(n > 0, (lower + upper) / 2, 0.0)[..., 0]
