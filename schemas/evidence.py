"""Evidence in words, with units: for the reason of a pause, and for the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.gates import RATIOS, Evidence, Metric

_RATIOS = frozenset(one.value for one in RATIOS)
_SHARES = frozenset({Metric.SILENCE.value, Metric.SHADOW_AGREEMENT.value})
_AT_LEAST = frozenset({"min_inferences", "success_rate", "accuracy", Metric.SHADOW_AGREEMENT.value})
_NAMES = {"min_inferences": "inferences per device", "rss": "memory"}

TIMES, DASH = "\u00d7", "\u2013"


@dataclass(frozen=True, slots=True)
class Said:
    """Evidence as text. interval, control and sizes are "" where there is none.

    metric: as in ``latency p95``. value: as in ``6.2 points`` or ``97.4 %``; a factor ends with the
    sign of multiplication. interval: as in ``-1.1 to 8.3``. limit: as in ``≤ 5 points``.
    sizes: devices, as in ``12 against 20``.
    """

    metric: str
    value: str
    interval: str
    control: str
    limit: str
    sizes: str


def compares(evidence: Evidence) -> bool:
    """Whether it is of a comparison with a cohort: such a one was seen by a look."""
    return evidence.look is not None


def said(evidence: Evidence) -> Said:
    """The parts of evidence as text."""
    low, high = evidence.low, evidence.high
    interval = ""
    if low is not None or high is not None:
        between = " to " if low is None or low < 0 else DASH
        interval = f"{_number(evidence, low)}{between}{_number(evidence, high)}"
    control = "" if evidence.control is None else _shown(evidence, evidence.control)
    sizes = str(evidence.n if evidence.devices is None else evidence.devices)
    if evidence.controls:
        sizes += f" against {evidence.controls}"
    return Said(
        metric=_name(evidence),
        value="no data" if evidence.value is None else _shown(evidence, evidence.value),
        interval=interval,
        control=control,
        limit=f"{'≥' if _at_least(evidence) else '≤'} {_limit(evidence)}",
        sizes=sizes,
    )


def sentence(evidence: Evidence) -> str:
    """As in ``accuracy lost 6.2 points (4.1 to 8.3) of cam, at most 5 points, 12 devices``."""
    parts = said(evidence)
    value = "has no data" if evidence.value is None else parts.value
    text = f"{parts.metric} {value}"
    if parts.interval:
        text += f" ({parts.interval})"
    if evidence.device_class:
        text += f" of {evidence.device_class}"
    text += f", at {'least' if _at_least(evidence) else 'most'} {_limit(evidence)}"
    text += f", {_devices(evidence)}"
    known = evidence.note and not (compares(evidence) and evidence.value is not None)
    return f"{text} ({evidence.note})" if known else text


def _name(evidence: Evidence) -> str:
    if compares(evidence) and evidence.metric == Metric.ACCURACY.value:
        return "accuracy lost"
    return _NAMES.get(evidence.metric, evidence.metric.replace("_", " "))


def _devices(evidence: Evidence) -> str:
    many = evidence.n if evidence.devices is None else evidence.devices
    text = "1 device" if many == 1 else f"{many} devices"
    return f"{text} against {evidence.controls}" if evidence.controls else text


def _at_least(evidence: Evidence) -> bool:
    # Of a comparison it is how much worse the accuracy is.
    worse = compares(evidence) and evidence.metric == Metric.ACCURACY.value
    return evidence.metric in _AT_LEAST and not worse


def _limit(evidence: Evidence) -> str:
    if _in_points(evidence):
        return f"{_points(evidence.threshold)} points"
    return _shown(evidence, evidence.threshold)


def _in_points(evidence: Evidence) -> bool:
    return compares(evidence) and evidence.metric not in _RATIOS | _SHARES


def _shown(evidence: Evidence, value: float) -> str:
    if evidence.metric == "min_inferences":
        return f"{value:g}"
    if evidence.metric in _RATIOS:
        return f"{value:.3g}{TIMES}"
    if _in_points(evidence):
        return f"{_points(value)} points"
    return f"{100 * value:.3g} %"


def _number(evidence: Evidence, value: float | None) -> str:
    """A limit of an interval, without its unit."""
    if value is None:
        return "?"
    if evidence.metric in _RATIOS:
        return f"{value:.3g}"
    return _points(value)


def _points(value: float) -> str:
    return f"{100 * value:.3g}"
