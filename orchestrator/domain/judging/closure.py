"""Limits of a mean, or of a difference of two, such that worse never looks better.

Welch's lower limit falls when a single device gets much worse, for the spread grows faster than
the mean. So it is taken of whatever values the devices could have had that are no worse than
theirs, and the highest counts: what shows harm when some devices are forgiven a part, shows it.
Likewise of the upper limit the lowest of all values that are no better: a device far better than
the rest does not keep open what would be shown if it were like them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from orchestrator.domain.judging.compare import Array, Group

_RATIOS = 2.0 ** np.array([-4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4])
"""Of the variances of a device's value in the two cohorts; between two of them one t is used."""

_UNLIKE = 1.5
"""From this ratio of their sizes on, the smaller cohort is taken to vary as the larger at least.

Few devices that are all alike by chance, as one in ten is odd and none of them is, or held at the
same bound, would otherwise tell of no variance at all: with 200 against 5 up to a third of
harmless versions would be stopped.
"""


def closed_low(values: Array, least: Array, control: Group | None, alpha: Array | float) -> Array:
    """The highest of the lower limits of all ``y <= values``, less the control's mean.

    The limit of one y is its mean less ``h(v)``, v being the variance of that mean and h Welch's
    half-width by ``_steps``. As h never falls when v grows, the best of all y with one mean is the
    one of least variance: ``min(values, m)``, for it is majorized by every other. Between two
    neighbouring values and two steps of h the limit is a concave function of m whose
    maximum has a closed form. The result never falls when a value grows, because then there are
    only more y, and nothing else depends on the values.

    Args:
        values: of the devices, NaN where one is not counted.
        least: the variance of the mean is never taken to be less.
        control: what is subtracted; None: nothing.
        alpha: the chance that the limit of one y is too high.

    Returns:
        The limit; -inf where a cohort has fewer than two devices, or nothing has a variance.
    """
    if not values.shape[-1]:
        return np.full(values.shape[:-1], -np.inf)
    n = np.isfinite(values).sum(axis=-1).astype(np.float64)
    fewest = n if control is None else np.minimum(n, control.n)
    mean = np.zeros(n.shape) if control is None else control.mean
    other = np.zeros(n.shape) if control is None else control.squared_error
    enough = (fewest > 1) & np.isfinite(other + mean) & (least + other > 0)
    sure = np.where(np.isfinite(other), other, 0.0)
    steps = _steps(n, None if control is None else control.n, sure, alpha)
    runs = _Runs.of(np.sort(values, axis=-1), np.maximum(n, 2.0))
    best = np.full(n.shape, -np.inf)
    for step in steps:
        best = np.maximum(best, runs.highest(least, step))
    return np.where(enough, best - mean, -np.inf)


def closed_high(values: Array, least: Array, control: Group | None, alpha: Array | float) -> Array:
    """The lowest of the upper limits of all ``y >= values``, less the control's mean.

    Args and result are those of ``closed_low``, turned around: it never falls when a value or
    ``least`` grows, so what is not shown to be harmless stays so when any device gets worse.
    """
    turned = control
    if control is not None:
        turned = Group(-control.mean, control.squared_error, control.n, control.least)
    return -closed_low(-values, least, turned, alpha)


@dataclass(frozen=True, slots=True)
class _Step:
    """A half-width ``t * sqrt(max(v, floor) + other)`` for v up to ``end``."""

    t: Array
    floor: Array
    other: Array
    end: Array


def _steps(n: Array, m: Array | None, other: Array, alpha: Array | float) -> list[_Step]:
    """Welch's half-width as a function of v alone that never falls, and is never too small.

    Satterthwaite's degrees of freedom first rise with v and then fall, so within an interval of v
    they are no less than at its worse end. Where the half-width would fall, as t does while v is
    small, it stays: by a floor of v. No more freedom is taken than devices of both cohorts have
    that differ equally: five that happen to be alike do not know what thirty know. Of cohorts of
    unlike size the smaller varies as the larger does at least: a wave by a floor of v, a control by
    growing with v. Neither lets the half-width fall.
    """
    one = np.maximum(n - 1.0, 1.0)
    if m is None:
        nothing, all_ = np.zeros(n.shape), np.full(n.shape, np.inf)
        return [_Step(np.asarray(-special.stdtrit(one, alpha)), nothing, nothing, all_)]
    one, two = np.broadcast_arrays(one, np.maximum(m - 1.0, 1.0))
    same = np.maximum(m, 1.0) / np.maximum(n, 1.0)
    equal = same[..., None]
    few, few_kept = same >= _UNLIKE, same <= 1 / _UNLIKE

    def satterthwaite(ratios: Array) -> Array:
        parts = ratios**2 / one[..., None] + 1.0 / two[..., None]
        return np.asarray((ratios + 1.0) ** 2 / parts)

    ratios = _RATIOS * equal
    ends = np.concatenate([two[..., None], satterthwaite(ratios), one[..., None]], axis=-1)
    freedom = np.minimum(np.minimum(ends[..., 1:], ends[..., :-1]), satterthwaite(equal))
    t = np.asarray(-special.stdtrit(freedom, np.asarray(alpha)[..., None]))
    steps, width = [], np.zeros(n.shape)
    for i in range(freedom.shape[-1]):
        begin = ratios[..., i - 1] if i else np.zeros(n.shape)
        # Beyond equal variances those of a small control grow too, in all v (1 + n / m).
        grows = few_kept & (begin >= same)
        scale, rest = np.where(grows, 1.0 + 1.0 / same, 1.0), np.where(grows, 0.0, 1.0)
        floor = np.maximum(begin, ((width / t[..., i]) ** 2 - rest) / scale)
        floor = np.where(few, np.maximum(floor, same), floor)
        last = i == freedom.shape[-1] - 1
        end = np.full(n.shape, np.inf) if last else ratios[..., i]
        width = t[..., i] * np.sqrt(scale * np.maximum(end, floor) + rest)
        upto = end if last else end * other
        steps.append(_Step(t[..., i] * np.sqrt(scale), floor * other, rest * other, upto))
    return steps


@dataclass(frozen=True, slots=True)
class _Runs:
    """For every number of devices that keep their value, the others being held at m.

    With q kept, whose mean is a, k held and d = m - a, the mean is a + d k/n and the sum of
    squares w + d^2 qk/n. own is w / n(n - 1), slope what d^2 adds to that; here and after bound d.
    """

    there: NDArray[np.bool_]
    start: Array
    share: Array
    own: Array
    slope: Array
    here: Array
    after: Array
    kept: Array
    n: Array

    @classmethod
    def of(cls, ordered: Array, n: Array) -> _Runs:
        """NaN comes last in ``ordered``."""
        n, there = n[..., None], np.isfinite(ordered)
        kept = np.arange(1, ordered.shape[-1] + 1, dtype=np.float64)
        center = np.where(there[..., :1], ordered[..., :1], 0.0)
        known = np.where(there, ordered - center, 0.0)
        a = np.cumsum(known, axis=-1) / kept
        w = np.maximum(np.cumsum(known**2, axis=-1) - kept * a**2, 0.0)
        after = np.concatenate([known[..., 1:], known[..., -1:]], axis=-1) - a
        share, pairs = np.maximum(n - kept, 0.0) / n, n * (n - 1.0)
        here = known - a
        after = np.maximum(here, after)
        return cls(there, center + a, share, w / pairs, kept * share / pairs, here, after, kept, n)

    def highest(self, least: Array, step: _Step) -> Array:
        """The highest limit of those that the step is for."""
        other, t, end = (one[..., None] for one in (step.other, step.t, step.end))
        floor = np.maximum(least, step.floor)[..., None]
        # Where the limit is highest as a function of d; past all if it grows for ever.
        n, own = self.n, self.own
        curve = self.kept * (t**2 * self.kept - self.share * n * (n - 1.0))
        pairs = n * (n - 1.0)
        top = np.sqrt(pairs**2 * (own + other) / np.where(curve > 0, curve, np.nan))
        top = np.where(curve > 0, top, np.inf)
        # Up to ``free`` the variance is the least one anyway, beyond ``most`` the step ends.
        free, most = self._reaches(floor), self._reaches(end)
        d = np.clip(np.maximum(top, free), self.here, self.after)
        d = np.minimum(d, np.maximum(most, self.here))
        error = np.sqrt(np.maximum(own + self.slope * d**2, floor) + other)
        limit = self.start + d * self.share - t * error
        fits = self.there & (self.here <= most) & (least[..., None] <= end)
        return np.asarray(np.max(np.where(fits, limit, -np.inf), axis=-1))

    def _reaches(self, variance: Array) -> Array:
        """The d up to which the variance is no more than this; below every d if none is."""
        room = variance - self.own
        flat = self.slope <= 0
        d = np.sqrt(np.maximum(room, 0.0) / np.where(flat, 1.0, self.slope))
        return np.where(flat & (room >= 0), np.inf, np.where(room < 0, -np.inf, d))
