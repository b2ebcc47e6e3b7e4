"""What the inputs look like: a few statistics of each, counted in fixed bins.

The bins are fixed by the training split and travel in the manifest; a device counts its
own inputs in the same bins, so that the two distributions can be compared. Nothing here
knows of torch: the device does the same with NumPy alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from schemas.dataset import MAX_CLASSES_SHOWN, Baseline, Feature

BINS = 20
MAX_CHANNELS = 16
"""Inputs of at most so many features or channels get statistics of each one."""

Values = NDArray[np.float64]

_LAYOUT = re.compile(r"^N[A-Z]*C[A-Z]*$")


@dataclass(frozen=True, slots=True)
class Binned:
    """Values counted in bins; under, over: outside of them; nan: no numbers."""

    counts: tuple[int, ...]
    under: int
    over: int
    nan: int


def bin_counts(values: Values, edges: Sequence[float]) -> Binned:
    """Count values in bins; the counts of two sets in the same bins add up.

    Bin i holds ``edges[i] <= v < edges[i + 1]``; the last one holds its upper edge too.
    Infinities are under or over.

    Args:
        values: (n,), any numbers.
        edges: ascending, finite, at least two.
    """
    known = values[~np.isnan(values)]
    bounds = np.asarray(edges, dtype=np.float64)
    slots = np.searchsorted(bounds, known, side="right")
    slots[known == bounds[-1]] = len(bounds) - 1
    found = np.bincount(slots, minlength=len(bounds) + 1).tolist()
    return Binned(tuple(found[1:-1]), found[0], found[-1], len(values) - len(known))


def edges_of(values: Values, bins: int = BINS) -> tuple[float, ...]:
    """Edges that part values into at most ``bins`` bins of about equal counts.

    Where there are no more different values than bins, each gets a bin of its own, with
    the edges half way between them: a value that another machine computes with another
    last digit then stays where it is. Otherwise the edges are quantiles, from the
    smallest value to the largest.

    Args:
        values: (n,); those that are not finite are left out.
        bins: at least one.

    Returns:
        Strictly ascending edges, at least two; none if no value is finite.
    """
    different = np.unique(values[np.isfinite(values)])
    if len(different) == 0:
        return ()
    if len(different) <= bins:
        middles = different[:-1] / 2 + different[1:] / 2
        # Of a constant, anything that is not it by rounding alone lies outside.
        with np.errstate(over="ignore"):
            gap = float(np.diff(different).max()) / 2 if len(different) > 1 else 0.0
        gap = max(gap, abs(float(different[-1])) * 1e-6, abs(float(different[0])) * 1e-6, 1e-9)
        with np.errstate(over="ignore"):  # clipped below
            edges = np.concatenate([[different[0] - gap], middles, [different[-1] + gap]])
    else:
        finite = values[np.isfinite(values)]
        # Values themselves: nothing between them can overflow.
        edges = np.quantile(finite, np.linspace(0.0, 1.0, bins + 1), method="inverted_cdf")
    # Half way between two neighbouring numbers is one of them, and a gap may be infinite.
    limit = np.finfo(np.float64).max
    return tuple(np.unique(np.clip(edges, -limit, limit)).tolist())


def channel_axis(shape: Sequence[int], layout: str | None) -> int | None:
    """Which axis of one input counts its channels or features, if it is known.

    It is where the layout has its C; without a layout, the first of up to two axes, as in
    torch's own order.

    Args:
        shape: of one input, without the batch.
        layout: such as ``NCHW``, with the batch.
    """
    if layout is not None and _LAYOUT.match(layout) and len(layout) == len(shape) + 1:
        return layout.index("C") - 1
    return 0 if 1 <= len(shape) <= 2 else None  # noqa: PLR2004 - features, or channels by time


def input_statistics(x: NDArray[np.generic], layout: str | None = None) -> dict[str, Values]:
    """A few numbers of each input, by name.

    ``mean``, ``std``, ``min``, ``max`` and ``zeros`` (the share of zeros) of all its
    values; for 2 to ``MAX_CHANNELS`` features or channels also ``mean[i]`` and, if a
    channel has several values, ``std[i]`` of each.

    Args:
        x: inputs, (n, …), of any numeric dtype.
        layout: see ``channel_axis``.

    Returns:
        (n,) float64 each, the same names for all inputs of one shape. NaN where an input
        holds one; infinities give infinities or NaN.
    """
    n, shape = len(x), x.shape[1:]
    values = x.reshape(n, -1).astype(np.float64)
    if values.shape[1] == 0:
        return {}
    with np.errstate(invalid="ignore", over="ignore"):
        found = {
            "mean": values.mean(1),
            "std": values.std(1),
            "min": values.min(1),
            "max": values.max(1),
            "zeros": (values == 0).mean(1),
        }
        axis = channel_axis(shape, layout)
        if axis is None or not 1 < shape[axis] <= MAX_CHANNELS:
            return found
        channels = np.moveaxis(values.reshape(n, *shape), axis + 1, 1).reshape(n, shape[axis], -1)
        means, spreads = channels.mean(2), channels.std(2)
    found |= {f"mean[{i}]": means[:, i] for i in range(shape[axis])}
    if channels.shape[2] > 1:
        found |= {f"std[{i}]": spreads[:, i] for i in range(shape[axis])}
    return found


def baseline_of(statistics: Mapping[str, Values], classes: Mapping[int, int]) -> Baseline:
    """Bins and counts of each statistic, and the share of each class.

    Args:
        statistics: by name, (n,) each; of training samples.
        classes: samples by class.
    """
    lengths = {len(values) for values in statistics.values()}
    samples = sum(classes.values())
    features = [_feature(name, values) for name, values in statistics.items()]
    return Baseline(
        n=max(lengths, default=0),
        features=tuple(one for one in features if one is not None),
        classes={label: count / samples for label, count in most_frequent(classes).items()},
    )


def most_frequent(classes: Mapping[int, int]) -> dict[int, int]:
    """The ``MAX_CLASSES_SHOWN`` classes with the most samples, by number."""
    order = sorted(classes.items(), key=lambda item: (-item[1], item[0]))
    return dict(sorted(order[:MAX_CLASSES_SHOWN]))


def _feature(name: str, values: Values) -> Feature | None:
    """None for a statistic that is never a finite number: it has no bins."""
    edges = edges_of(values)
    if len(edges) < 2 or not all(a < b for a, b in pairwise(edges)):  # noqa: PLR2004 - one bin
        return None
    found = bin_counts(values, edges)
    return Feature(
        name=name,
        edges=edges,
        counts=found.counts,
        under=found.under,
        over=found.over,
        nan=found.nan,
    )
