"""Means over devices compared: Welch's t, exact binomial limits, Fisher's exact test.

Arrays have devices along their last axis and any others before it, so that one wave and ten
thousand simulated ones are computed by the same lines. NaN stands for a device that is not
counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Group:
    """A cohort's mean over its devices.

    n: of them. squared_error: of the mean. least: what counting alone makes of that.
    """

    mean: Array
    squared_error: Array
    n: Array
    least: Array


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference of means, and its limits; each is passed with the chance alpha at most."""

    value: Array
    low: Array
    high: Array


def group(values: Array, noise: Array) -> Group:
    """The mean of a cohort's devices, each with one vote, and how sure it is.

    Args:
        values: of each device; NaN where it is not counted.
        noise: of each, the variance that counting alone gives its value. The mean is
            never taken to be surer than by it: devices that all say exactly the same, as zero
            errors of fifty, have no variance of their own, and yet prove nothing about one in
            a thousand.
    """
    there = np.isfinite(values)
    n = there.sum(axis=-1).astype(np.float64)
    some = np.maximum(n, 1.0)
    mean = np.where(there, values, 0.0).sum(axis=-1) / some
    apart = np.where(there, values - mean[..., None], 0.0)
    own = (apart**2).sum(axis=-1) / np.maximum(n - 1.0, 1.0) / some
    least = np.where(there, noise, 0.0).sum(axis=-1) / some**2
    return Group(mean, np.maximum(own, least), n, least)


def contrast(
    groups: Sequence[Group],
    weights: Sequence[float],
    alpha_low: Array | float,
    alpha_high: Array | float,
) -> Interval:
    """A weighted sum of means, and one-sided limits of it.

    Welch (Biometrika 34, 1947) with Satterthwaite's degrees of freedom (Biometrics Bulletin 2,
    1946); of one group that is the one-sample t. Each group needs two devices; with fewer, or
    no variance at all, the limits are infinite, which shows nothing.
    """
    value = sum(w * g.mean for w, g in zip(weights, groups, strict=True))
    each = [w * w * g.squared_error for w, g in zip(weights, groups, strict=True)]
    squared = np.asarray(sum(each))
    parts = sum(e**2 / np.maximum(g.n - 1.0, 1.0) for e, g in zip(each, groups, strict=True))
    enough = np.all([g.n >= 2 for g in groups], axis=0)  # noqa: PLR2004 - a variance needs two
    enough = enough & (squared > 0) & np.isfinite(squared) & np.isfinite(value)
    freedom = np.where(enough, squared**2 / np.where(enough, parts, 1.0), 1.0)
    error = np.sqrt(np.where(enough, squared, 1.0))
    # The quantile of the upper tail as minus that of the lower one: 1 - alpha would round.
    low = value + special.stdtrit(freedom, alpha_low) * error
    high = value - special.stdtrit(freedom, alpha_high) * error
    shown = np.where(enough, low, -np.inf), np.where(enough, high, np.inf)
    return Interval(np.asarray(value), *shown)


def exact_low(hits: Array | int, n: Array | int, alpha: Array | float) -> Array:
    """The lower one-sided limit of a share (Clopper & Pearson, Biometrika 26, 1934)."""
    hits, n = np.asarray(hits, np.float64), np.asarray(n, np.float64)
    found = special.betaincinv(np.maximum(hits, 1.0), n - hits + 1.0, alpha)
    return np.where(hits > 0, found, 0.0)


def exact_high(hits: Array | int, n: Array | int, alpha: Array | float) -> Array:
    """The upper one-sided limit of a share."""
    hits, n = np.asarray(hits, np.float64), np.asarray(n, np.float64)
    rest = n - hits
    found = special.betainccinv(hits + 1.0, np.maximum(rest, 1.0), alpha)
    return np.where(rest > 0, found, 1.0)


def fisher(hits: int, n: int, control_hits: int, control_n: int) -> float:
    """The chance of so many hits or more in the first group if both were alike.

    Fisher's exact test, one-sided: the tail of the hypergeometric distribution.
    """
    every, total = n + control_n, hits + control_hits
    counts = np.arange(hits, min(n, total) + 1, dtype=np.float64)

    def choose(of: float, some: Array) -> Array:
        parts: Array = special.gammaln(some + 1) + special.gammaln(of - some + 1)
        return np.asarray(special.gammaln(of + 1) - parts)

    logs = choose(n, counts) + choose(control_n, total - counts)
    tail = np.exp(logs - choose(every, np.asarray(float(total))))
    return float(min(1.0, tail[total - counts <= control_n].sum()))
