"""Evidence in plain words: what was measured, on how many devices, against what, what decided.

One sentence for each figure, as the reason of a pause and on the terminal. Who reads it need not
know any statistics; the numbers themselves are in the evidence.
"""

from __future__ import annotations

from schemas.gates import MEANINGFUL, RATIOS, Evidence, Metric

_RATIOS = frozenset(one.value for one in RATIOS)
_AT_LEAST = frozenset({"min_inferences", "success_rate", "accuracy"})
_COMPARED = {
    Metric.CLASS_MIX.value: "mix of answers",
    Metric.LOW_CONFIDENCE.value: "share of unsure answers",
    Metric.RSS.value: "memory",
}
_COUNTED = {
    "failure_rate": "devices that failed",
    "failed_rate": "devices that failed to update",
    "success_rate": "devices that serve it",
    "error_rate": "failed inferences",
    "accuracy": "right answers",
    "min_inferences": "inferences of the device with the fewest",
}
_MEANS = frozenset({"error_rate", "accuracy"})


def compares(evidence: Evidence) -> bool:
    """Whether it is of telemetry held against something: such a one was seen by a look."""
    return evidence.look is not None


def sentence(evidence: Evidence) -> str:
    """What a figure says.

    As in ``accuracy of cam got 6.2 points worse on 12 devices than on 20 that kept their version;
    that is no luck (it is at least 4.1 points); you allowed 5 points, and half of it (2.5 points),
    shown for certain beside others, stops a wave``.
    """
    if not compares(evidence):
        text = _counted(evidence)
    elif evidence.value is None:
        name = _COMPARED.get(evidence.metric, evidence.metric.replace("_", " "))
        return f"{name}{_of(evidence)} is not known" + (f": {evidence.note}" * bool(evidence.note))
    else:
        text = f"{_measured(evidence, evidence.value)}; {_decided(evidence)}"
    return f"{text} ({evidence.note})" if evidence.note else text


def _counted(evidence: Evidence) -> str:
    """Of figures that nothing is held against."""
    name = evidence.metric.removesuffix("_rate").replace("_", " ")
    name = _COUNTED.get(evidence.metric, f"devices that ended as {name}")
    least = evidence.metric in _AT_LEAST
    limit = f"at {'least' if least else 'most'} {_amount(evidence, evidence.threshold)}"
    limit += " are wanted" if least else " are tolerated"
    if evidence.value is None:
        return f"{name}: nothing is known yet; {limit}"
    of = f"the mean of {_devices(evidence.n)}" if evidence.metric in _MEANS else ""
    of = of or f"of {_devices(evidence.n)}"
    return f"{name}: {_amount(evidence, evidence.value)}, {of}; {limit}"


def _measured(evidence: Evidence, value: float) -> str:
    devices, share = _devices(_size(evidence)), _amount(evidence, value)
    match evidence.metric:
        case Metric.SILENCE.value:
            text = f"{share} of {devices}{_of(evidence)} fell silent"
            if evidence.control is None:
                return text
            control = _amount(evidence, evidence.control)
            return f"{text}, {control} of {evidence.controls} that kept their version"
        case Metric.SHADOW_AGREEMENT.value:
            alike = "were those of the version that serves"
            return f"{share} of the answers{_of(evidence)} {alike}, on {devices}"
        case metric:
            name = _COMPARED.get(metric, metric.replace("_", " "))
    if metric in _RATIOS:
        against = _against(evidence, "as", "as before")
        return f"{name}{_of(evidence)} became {share} as high on {devices} {against}"
    points = _amount(evidence, abs(value))
    if metric == Metric.CLASS_MIX.value:
        against = _against(evidence, "than", "than before")
        more = "less" if value < 0 else "more"
        return f"{name}{_of(evidence)} moved by {points} {more} on {devices} {against}"
    change = f"{points} {'better' if value < 0 else 'worse'}"
    against = _against(evidence, "than", "than before")
    return f"{name}{_of(evidence)} got {change} on {devices} {against}"


def _against(evidence: Evidence, word: str, past: str) -> str:
    if not evidence.controls:
        return past
    return f"{word} on {evidence.controls} that kept their version"


def _decided(evidence: Evidence) -> str:
    """What limit decided, and how far luck goes."""
    limit = _amount(evidence, evidence.threshold)
    if evidence.metric == Metric.SHADOW_AGREEMENT.value:
        return _agreed(evidence, limit)
    if evidence.ok is None:
        return f"{_range(evidence)}, and {limit} are tolerated"
    if evidence.ok:
        high = _amount(evidence, evidence.high)
        return f"luck included it is at most {high}, and {limit} are tolerated"
    if not evidence.controls:
        low = _amount(evidence, evidence.low)
        return f"luck included it is at least {low}, and {limit} are tolerated"
    if evidence.metric == Metric.SILENCE.value:
        stops = f"{100 * MEANINGFUL * evidence.threshold:.3g} points"
        return f"that is no luck, and {stops} more than there stop a wave"
    low = _amount(evidence, evidence.low)
    half = f"half of it ({_stops(evidence)}), shown for certain beside others, stops a wave"
    return f"that is no luck (it is at least {low}); you allowed {limit}, and {half}"


def _agreed(evidence: Evidence, limit: str) -> str:
    if evidence.ok is None:
        return f"{_range(evidence)}, and at least {limit} are wanted"
    if evidence.ok:
        low = _amount(evidence, evidence.low)
        return f"luck included it is at least {low}, and {limit} are wanted"
    high = _amount(evidence, evidence.high)
    return f"luck included it is at most {high}, and {limit} are wanted"


def _range(evidence: Evidence) -> str:
    low, high = evidence.low, evidence.high
    if low is None or high is None:
        return "too little is known to tell it from luck"
    first, last = _amount(evidence, low), _amount(evidence, high)
    return f"luck may have made it anything from {first} to {last}"


def _stops(evidence: Evidence) -> str:
    if evidence.metric in _RATIOS:  # half of its logarithm
        return _amount(evidence, evidence.threshold**MEANINGFUL)
    return _amount(evidence, evidence.threshold * MEANINGFUL)


def _amount(evidence: Evidence, value: float | None) -> str:
    """With its unit, as in ``6.2 points``, ``97.4 %``, ``1.31 times``."""
    if value is None:
        return "?"
    if evidence.metric == "min_inferences":
        return f"{value:g}"
    if evidence.metric in _RATIOS:
        return f"{value:.3g} times"
    shares = {Metric.SILENCE.value, Metric.SHADOW_AGREEMENT.value}
    if compares(evidence) and evidence.metric not in shares:
        return f"{100 * value:.3g} points"
    return f"{100 * value:.3g} %"


def _of(evidence: Evidence) -> str:
    return f" of {evidence.device_class}" if evidence.device_class else ""


def _size(evidence: Evidence) -> int:
    return evidence.n if evidence.devices is None else evidence.devices


def _devices(many: int) -> str:
    return "1 device" if many == 1 else f"{many} devices"
