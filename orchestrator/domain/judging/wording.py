"""A difference between two versions, in a sentence."""

from __future__ import annotations

from schemas.experiment import Difference
from schemas.gates import Metric

_MORE = {
    Metric.ERROR_RATE: ("fails more often", "fails less often"),
    Metric.ACCURACY: ("is right more often", "is right less often"),
    Metric.LOW_CONFIDENCE: ("is unsure more often", "is unsure less often"),
    Metric.CLASS_MIX: ("changed its answers more", "changed its answers less"),
    Metric.LATENCY_P50: ("is slower", "is faster"),
    Metric.LATENCY_P95: ("is slower", "is faster"),
    Metric.LATENCY_P99: ("is slower", "is faster"),
    Metric.RSS: ("takes more memory", "takes less memory"),
    Metric.ENERGY: ("takes more energy", "takes less energy"),
}


def in_words(found: Difference) -> str:
    """What a difference says; nothing more than its interval does."""
    value, low, high = found.value, found.low, found.high
    if value is None or low is None or high is None:
        return f"cannot be said: {found.devices_a} devices of a and {found.devices_b} of b count"
    limits = f"{_signed(found, low)} to {_signed(found, high)}"
    nothing = 1.0 if found.is_ratio else 0.0
    if low <= nothing <= high:
        return f"no difference is shown; it lies in {limits}"
    more, less = _MORE[found.metric]
    return f"b {more if value > nothing else less}: {_signed(found, value)} ({limits})"


def _signed(found: Difference, value: float) -> str:
    if found.is_ratio:
        return f"{(value - 1) * 100:+.1f} %"
    return f"{value * 100:+.2f} points"
