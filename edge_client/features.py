"""Statistics of inputs, counted in the bins that the manifest's baseline fixes.

The definitions are those of ``schemas.dataset.Feature`` and of the training side, which a device
cannot import; a test holds the two together, number for number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.dataset import Feature
from schemas.model import Manifest

Values = npt.NDArray[np.float64]

MAX_CHANNELS = 16
"""Inputs of at most so many features or channels have statistics of each one."""

_LAYOUT = re.compile(r"^N[A-Z]*C[A-Z]*$")
_CHANNEL = re.compile(r"^(?:mean|std)\[(\d+)\]$")


def channel_axis(shape: Sequence[int], layout: str | None) -> int | None:
    """Which axis of one input counts its channels or features, if it is known.

    Args:
        shape: of one input, without the batch.
        layout: such as ``NCHW``, with the batch.
    """
    if layout is not None and _LAYOUT.match(layout) and len(layout) == len(shape) + 1:
        return layout.index("C") - 1
    return 0 if 1 <= len(shape) <= 2 else None  # noqa: PLR2004 - features, or channels by time


def statistics(
    x: npt.NDArray[Any], names: Sequence[str], layout: str | None = None
) -> dict[str, Values]:
    """Those of the statistics ``names`` that inputs of this shape have.

    Args:
        x: inputs, (n, …), of any numeric dtype.
        names: as in ``Feature.name``.
        layout: see ``channel_axis``.

    Returns:
        (n,) float64 each. NaN where an input holds one; infinities give infinities or NaN.
    """
    n, shape = len(x), x.shape[1:]
    values = x.reshape(n, -1).astype(np.float64)
    if values.shape[1] == 0:
        return {}
    made: dict[str, Callable[[], Values]] = {
        "mean": lambda: values.mean(1),
        "std": lambda: values.std(1),
        "min": lambda: values.min(1),
        "max": lambda: values.max(1),
        "zeros": lambda: (values == 0).mean(1),
    }
    with np.errstate(invalid="ignore", over="ignore"):
        found = {name: make() for name, make in made.items() if name in names}
        axis = channel_axis(shape, layout)
        if axis is None or not 1 < shape[axis] <= MAX_CHANNELS:
            return found
        if not any(_CHANNEL.match(name) for name in names):
            return found
        channels = np.moveaxis(values.reshape(n, *shape), axis + 1, 1).reshape(n, shape[axis], -1)
        means, spreads = channels.mean(2), channels.std(2)
    several = channels.shape[2] > 1
    for i in range(shape[axis]):
        found[f"mean[{i}]"] = means[:, i]
        if several:
            found[f"std[{i}]"] = spreads[:, i]
    return {name: column for name, column in found.items() if name in names}


def bin_counts(values: Values, edges: Values) -> list[int]:
    """[under, over, nan, bin, bin, …]: bin i holds ``edges[i] <= v < edges[i + 1]``.

    The last bin holds its upper edge too; infinities are under or over.

    Args:
        values: (n,), any numbers.
        edges: ascending, finite, at least two.
    """
    known = values[~np.isnan(values)]
    slots = np.searchsorted(edges, known, side="right")
    slots[known == edges[-1]] = len(edges) - 1
    found = np.bincount(slots, minlength=len(edges) + 1).tolist()
    return [found[0], found[-1], len(values) - len(known), *found[1:-1]]


class Features:
    """Counts of a baseline's statistics. Not thread-safe."""

    def __init__(self, features: Sequence[Feature] = (), layout: str | None = None) -> None:
        """Nothing counted yet. layout: of the input that they are of."""
        self._layout = layout
        self._edges = {one.name: np.asarray(one.edges, np.float64) for one in features}
        self._counts = {name: [0] * (len(edges) + 2) for name, edges in self._edges.items()}

    def add(self, x: npt.NDArray[Any]) -> None:
        """Count inputs, (n, …)."""
        for name, values in statistics(x, tuple(self._edges), self._layout).items():
            self.fold(name, bin_counts(values, self._edges[name]))

    def fold(self, name: str, counts: Sequence[int]) -> None:
        """Add counts of the same bins."""
        mine = self._counts[name]
        for i, count in enumerate(counts):
            mine[i] += count

    def merge(self, other: Features) -> None:
        """Add those of another one of the same baseline."""
        for name, counts in other._counts.items():
            if name in self._counts:
                self.fold(name, counts)

    def taken(self) -> list[list[int]]:
        """Per feature, in the baseline's order, without the zeros at the end."""
        return [_cut(counts) for counts in self._counts.values()]


def features_of(manifest: Manifest | None) -> Features:
    """What a model's manifest says that its first input is to be compared with."""
    if manifest is None or manifest.baseline is None:
        return Features()
    return Features(manifest.baseline.features, manifest.signature.inputs[0].layout)


def _cut(counts: Sequence[int]) -> list[int]:
    last = max((i for i, count in enumerate(counts) if count), default=-1)
    return list(counts[: last + 1])
