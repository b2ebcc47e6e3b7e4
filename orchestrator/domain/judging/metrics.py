"""How much worse one device got, by each metric: a number, and how sure counting lets it be.

More is worse throughout: of accuracy it is the share of wrong answers that is taken. Rates differ
in points, ratios in natural logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.domain.judging.compare import Array
from orchestrator.domain.judging.counting import Counting
from orchestrator.domain.judging.figures import DeviceFigures, Span
from schemas.gates import Metric
from schemas.telemetry import GAMMA, quantile

ROUNDED = math.log(GAMMA) ** 2 / 12
"""Variance of a logarithm that is known to within one bucket."""

FARTHEST = math.log(1000.0)
"""No device counts as more than a thousand times slower or quicker."""

QUANTILES = {Metric.LATENCY_P50: 0.5, Metric.LATENCY_P95: 0.95, Metric.LATENCY_P99: 0.99}
MANY = 2**62
"""No count is as high; what is no number at all fails the comparison with it, too."""

UNSURE = 5
"""Bins of confidence below one half."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure of one device.

    noise: the variance that counting alone gives it; of a rate it is yet to be multiplied by
    ``p (1 - p)`` of its cohort. share: of a rate, what of p there is without the value: of a
    change the share before. weight: of the value in p.
    """

    value: float
    noise: float
    share: float | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Readings:
    """Of a cohort: the devices that count, and how many do not. counting: of rates."""

    values: Array
    noise: Array
    skipped: int = 0
    counting: Counting | None = None

    def __len__(self) -> int:
        """Devices that count."""
        return len(self.values)


def changes(metric: Metric, devices: Sequence[DeviceFigures], least: int) -> Readings:
    """What each device got worse by, against its own past.

    Args:
        metric: one that has a past; not SILENCE and not SHADOW_AGREEMENT.
        devices: of one class and cohort.
        least: inferences that a device must have made in both spans to be counted.
    """
    return _gather(_change(metric, device.pre, device.post, least) for device in devices)


def levels(metric: Metric, devices: Sequence[DeviceFigures], least: int) -> Readings:
    """The figure itself, of those devices that have no past."""
    fresh = (device.post if device.pre is None else None for device in devices)
    return _gather(None if span is None else _level(metric, span, least) for span in fresh)


def standings(metric: Metric, devices: Sequence[DeviceFigures], least: int) -> Readings:
    """The figure itself, of all devices, whatever they did before."""
    spans = (device.post for device in devices)
    return _gather(None if span is None else _level(metric, span, least) for span in spans)


def disagreements(devices: Sequence[DeviceFigures], least: int) -> Readings:
    """The share of answers of each device's shadow that were not the active model's."""
    spans = (device.post for device in devices)
    return _gather(
        None if span is None else _rate(span.compared - span.agreed, span.compared, least)
        for span in spans
    )


def pasts(metric: Metric, devices: Sequence[DeviceFigures], least: int) -> int:
    """Devices whose past is known well enough; it does not grow, so no others will be counted."""
    return sum(
        device.pre is not None
        and (
            sum(device.pre.classes.values()) >= max(least, 1)
            if metric is Metric.CLASS_MIX
            else _level(metric, device.pre, least) is not None
        )
        for device in devices
    )


def told(metric: Metric, device: DeviceFigures) -> bool:
    """Whether it has told anything of it since; of labels, whoever has none never will."""
    post = device.post
    if post is None:
        return False
    match metric:
        case Metric.ACCURACY:
            return post.labelled > 0
        case Metric.LOW_CONFIDENCE:
            return any(post.confidence)
        case Metric.LATENCY_P50 | Metric.LATENCY_P95 | Metric.LATENCY_P99:
            return bool(post.latency)
        case Metric.CLASS_MIX:
            return bool(post.classes)
        case Metric.RSS:
            return post.rss_mib > 0
        case Metric.ENERGY:
            return post.energy_n > 0 and (device.pre is None or device.pre.method == post.method)
        case _:
            return post.n > 0


def _change(metric: Metric, pre: Span | None, post: Span | None, least: int) -> Reading | None:
    if pre is None or post is None:
        return None
    if metric is Metric.CLASS_MIX:
        return _mix(pre.classes, post.classes, least)
    if metric is Metric.ENERGY and pre.method != post.method:
        return None
    before, after = _level(metric, pre, least), _level(metric, post, least)
    if before is None or after is None:
        return None
    value, noise = after.value - before.value, after.noise + before.noise
    if after.share is None or before.share is None:
        return Reading(max(-FARTHEST, min(FARTHEST, value)), noise)
    return Reading(value, noise, before.value, 0.5)


def _level(metric: Metric, span: Span, least: int) -> Reading | None:
    match metric:
        case Metric.ERROR_RATE:
            return _rate(span.errors, span.n, least)
        case Metric.ACCURACY:
            return _rate(span.labelled - span.correct, span.labelled, least)
        case Metric.LOW_CONFIDENCE:
            return _rate(sum(span.confidence[:UNSURE]), sum(span.confidence), least)
        case Metric.LATENCY_P50 | Metric.LATENCY_P95 | Metric.LATENCY_P99:
            return _quantile(span.latency, QUANTILES[metric], least)
        case Metric.RSS:
            return _log(span.rss_mib, 1) if span.n >= least else None
        case Metric.ENERGY:
            known = span.method and span.energy_n >= least
            return _log(span.energy_mj, span.energy_n) if known else None
        case _:
            return None  # of a mix there is only the change


def _rate(hits: int, n: int, least: int) -> Reading | None:
    usable = max(1, least) <= n < MANY and 0 <= hits <= n
    return Reading(hits / n, 1 / n, 0.0) if usable else None


def _quantile(histogram: Mapping[int, int], q: float, least: int) -> Reading | None:
    # Where not one value is expected beyond it, a quantile is the largest value.
    if not max(least, round(1 / (1 - q))) <= sum(histogram.values()) < MANY:
        return None
    found = quantile(histogram, q)
    return None if found is None else Reading(math.log(found), ROUNDED)


def _log(amount: float, of: int) -> Reading | None:
    return Reading(math.log(amount / of), ROUNDED) if 0 < amount < MANY and of > 0 else None


def _mix(pre: Mapping[int, int], post: Mapping[int, int], least: int) -> Reading | None:
    """Total variation between two mixes, less what counting so few would show of none.

    Of a class with share p, the difference of two counted shares is about normal with variance
    p (1 - p) (1/n + 1/m), and the mean size of such a one is its deviation times sqrt(2/pi).
    The noise is the variance of the distance of two classes, which more classes stay below.
    """
    n, m = sum(pre.values()), sum(post.values())
    if not (max(least, 1) <= n < MANY and max(least, 1) <= m < MANY):
        return None
    per, distance, luck = 1 / n + 1 / m, 0.0, 0.0
    for one in pre.keys() | post.keys():
        before, after = pre.get(one, 0) / n, post.get(one, 0) / m
        share = (before + after) / 2
        distance += abs(after - before) / 2
        luck += math.sqrt(share * (1 - share) * per * 2 / math.pi) / 2
    return Reading(distance - luck, per * 0.25 * (1 - 2 / math.pi))


def _gather(read: Iterable[Reading | None]) -> Readings:
    every = list(read)
    there = [one for one in every if one is not None and math.isfinite(one.value)]
    values = np.array([one.value for one in there], np.float64)
    noise = np.array([one.noise for one in there], np.float64)
    skipped = len(every) - len(there)
    shares = [one.share for one in there if one.share is not None]
    if not shares:
        return Readings(values, noise, skipped)
    counting = Counting(noise, np.asarray(np.mean(shares)), there[0].weight)
    return Readings(values, counting.noise(values.mean()), skipped, counting)
