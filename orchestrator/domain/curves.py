"""Curves with fewer points that look the same: first, last and all extremes are kept."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.job import MetricPoint

KEYS = ("accuracy", "loss", "validation_loss")
"""The figures whose extremes matter, unless a caller names others."""


def downsample(
    points: Sequence[MetricPoint], n: int, keys: Sequence[str] | None = None
) -> list[MetricPoint]:
    """At most about ``n`` of the points of one training, in their order.

    The epochs are cut into buckets of equal width; of each bucket stay the points with the
    least and with the greatest value of every key (min-max decimation), the earlier of
    equal ones; of a bucket without any key its first point. There are as many buckets as
    keep the result within ``n``.

    Args:
        points: by ascending epoch.
        n: how many to keep; the result has no more, unless ``n`` is below 2 + 2 per key.
        keys: the figures whose extremes matter; None: ``KEYS``.

    Returns:
        a part of ``points`` with the first, the last and every key's least and greatest
        value; all of them if there are no more than ``n``.
    """
    if len(points) <= n:
        return list(points)
    names = tuple(KEYS if keys is None else keys)
    buckets = max(1, n // 2)
    while True:
        kept = _kept(points, buckets, names)
        if len(kept) <= n or buckets == 1:
            return [points[i] for i in sorted(kept)]
        buckets = max(1, buckets * 3 // 4)


def _kept(points: Sequence[MetricPoint], buckets: int, names: Sequence[str]) -> set[int]:
    """The places of the points that stay, with so many buckets."""
    first, last = points[0].epoch, points[-1].epoch
    width = max(1, last - first + 1)
    kept, start = {0, len(points) - 1}, 0
    while start < len(points):
        bucket = (points[start].epoch - first) * buckets // width
        end = start + 1
        while end < len(points) and (points[end].epoch - first) * buckets // width == bucket:
            end += 1
        kept |= _extremes(points, start, end, names) or {start}
        start = end
    return kept


def _extremes(
    points: Sequence[MetricPoint], start: int, end: int, names: Sequence[str]
) -> set[int]:
    found: set[int] = set()
    for name in names:
        having = [i for i in range(start, end) if name in points[i].values]
        if having:
            found.add(min(having, key=lambda i: points[i].values[name]))
            found.add(max(having, key=lambda i: points[i].values[name]))
    return found
