"""The lower limit of a mean, or of a difference of two, such that worse never looks better.

Welch's limit falls when a single device gets much worse, for the spread grows faster than the
mean. So it is taken of whatever values the devices could have had that are no worse than theirs,
and the highest counts: what shows harm when some devices are forgiven a part, shows it.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from orchestrator.domain.judging.compare import Array, Group


def closed_low(values: Array, least: Array, control: Group | None, alpha: Array | float) -> Array:
    """The highest of the lower limits of all ``y <= values``, less the control's mean.

    Of all such y with one mean, ``min(values, m)`` has the least variance (it is majorized by
    every other), so the best is among them. Between two neighbouring values the limit is a
    concave function of m whose maximum has a closed form. It never falls when a value grows,
    because then there are only more y: for that nothing else may depend on the values, so the
    degrees of freedom are the least that Satterthwaite's can be, those of the smaller cohort.

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
    steps = -special.stdtrit(np.where(enough, fewest - 1.0, 1.0), alpha)
    best = _best(np.sort(values, axis=-1), np.maximum(n, 2.0), least, other, np.asarray(steps))
    return np.where(enough, best - mean, -np.inf)


def _best(ordered: Array, n: Array, least: Array, other: Array, steps: Array) -> Array:
    """Over every number of devices that keep their value, the others being held at m.

    With q kept, whose mean is a, k held and d = m - a, the mean is a + d k/n and the sum of
    squares w + d^2 qk/n. NaN comes last in ``ordered``.
    """
    n, least, other, steps = (one[..., None] for one in (n, least, other, steps))
    there = np.isfinite(ordered)
    kept = np.arange(1, ordered.shape[-1] + 1, dtype=np.float64)
    held = np.maximum(n - kept, 0.0)
    center = ordered[..., :1]
    known = np.where(there, ordered - center, 0.0)
    a = np.cumsum(known, axis=-1) / kept
    w = np.maximum(np.cumsum(known**2, axis=-1) - kept * a**2, 0.0)
    here = known - a
    after = np.concatenate([known[..., 1:], known[..., -1:]], axis=-1) - a
    pairs = n * (n - 1.0)
    own, slope = w / pairs, kept * held / n / pairs
    # Where the limit is highest as a function of d; past all if it grows for ever.
    curve = kept * (steps**2 * kept - held * (n - 1.0))
    top = np.sqrt(pairs**2 * (own + other) / np.where(curve > 0, curve, np.nan))
    top = np.where(curve > 0, top, np.inf)
    # Up to here the variance is the least one anyway.
    free = np.sqrt(np.maximum(least - own, 0.0) / np.where(slope > 0, slope, np.inf))
    d = np.clip(np.maximum(top, free), here, np.maximum(here, after))
    error = np.sqrt(np.maximum(own + slope * d**2, least) + other)
    limit = center + a + d * held / n - steps * error
    return np.asarray(np.max(np.where(there, limit, -np.inf), axis=-1))
