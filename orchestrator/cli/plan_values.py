"""Values of a rollout's options that have a form of their own: waves, windows, gates."""

from __future__ import annotations

import math
import re
from typing import Any

from orchestrator.cli.options import SPANS
from orchestrator.errors import Invalid
from schemas.gates import RATES, FailureKind, Metric

MAX_WAVES = 50
NONE = "none"

_WAVES_HINT = "as in --waves '1,[tag = lab],10%,100%'"
_WINDOW = re.compile(r"(\S+(?:\s+\S+){4})\s+(\d\S*)(?:\s+(\S+))?")
_FAILURE = re.compile(r"([a-z_-]+)\s*=\s*([0-9.]+%?)(?:/([0-9]{1,9}))?")
_GATE = re.compile(r"([a-z0-9_-]+)\s*=\s*([0-9.]+)\s*(%|x|)\s*(\??)")
_GROWTH = re.compile(r"([0-9.]+)\s*/\s*([0-9]{1,9})")


def waves(text: str) -> list[dict[str, Any]]:
    """Read ``1,[tag = lab],10%,100%``: counts, selectors, and percentages of the whole target.

    Raises:
        Invalid: it does not have this form.
    """
    parts = _parts(text)
    if len(parts) > MAX_WAVES:
        detail = f"--waves: {len(parts)} waves are more than {MAX_WAVES}"
        raise Invalid(detail)
    return [_wave(part) for part in parts]


def _parts(text: str) -> list[str]:
    """The text cut at its commas, but for those in brackets."""
    parts, depth, quote = [""], 0, ""
    for char in text:
        if char == "," and not depth:
            parts.append("")
            continue
        parts[-1] += char
        if depth and char in "\"'":
            quote = "" if quote == char else quote or char
        elif not quote:
            depth += {"[": 1, "]": -1}.get(char, 0)
    if depth or quote:
        detail = f"--waves: {text!r} has a bracket that is not closed"
        raise Invalid(detail, hint=_WAVES_HINT)
    return [part.strip() for part in parts]


def _wave(text: str) -> dict[str, Any]:
    if text.startswith("[") and text.endswith("]"):
        return {"where": text[1:-1].strip()}
    is_share = text.endswith("%")
    number = _number(text.removesuffix("%").strip())
    if number is not None and is_share and 0 < number <= 100:  # noqa: PLR2004 - percent
        return {"percent": number}
    if number is not None and not is_share and number >= 1 and number.is_integer():
        return {"count": int(number)}
    what = "a count of devices, a percentage up to 100% nor a selector in brackets"
    detail = f"--waves: {text!r} is neither {what}"
    raise Invalid(detail, hint=_WAVES_HINT)


def window(text: str) -> dict[str, Any]:
    """Read ``0 2 * * * 2h Europe/Berlin``: when it opens, for how long, and in which zone.

    Raises:
        Invalid: it does not have this form.
    """
    hint = "five fields of cron, how long and where, as in --window '0 2 * * 1-5 2h Europe/Berlin'"
    found = _WINDOW.fullmatch(text.strip())
    seconds = None if found is None else SPANS.seconds(found[2])
    if found is None or seconds is None:
        detail = f"--window: {text!r} is no maintenance window"
        raise Invalid(detail, hint=hint)
    if seconds % 60:
        detail = f"--window: {found[2]!r} is no whole number of minutes"
        raise Invalid(detail, hint=hint)
    made = {"cron": " ".join(found[1].split()), "minutes": int(seconds // 60)}
    return made | ({"timezone": found[3]} if found[3] else {})


def growth(text: str) -> dict[str, Any]:
    """Read ``2/10``: by which factor a rate grows, and after how many devices that succeeded.

    Raises:
        Invalid: it does not have this form.
    """
    found = _GROWTH.fullmatch(text.strip())
    factor = None if found is None else _number(found[1])
    if found is None or factor is None:
        detail = f"--grow: {text!r} is not of the form FACTOR/AFTER"
        raise Invalid(detail, hint="as in --grow 2/10: twice as fast after every 10 successes")
    return {"factor": factor, "after": int(found[2])}


def failure(text: str) -> dict[str, Any]:
    """Read ``rolled_back=5%/3``: a kind of failure, its rate and from how many devices on.

    Raises:
        Invalid: it does not have this form.
    """
    found = _FAILURE.fullmatch(text.strip())
    kinds = [kind.value for kind in FailureKind]
    kind = found[1].replace("-", "_") if found else ""
    rate = _share(found[2]) if found else None
    if found is None or kind not in kinds or rate is None:
        detail = f"--fail: {text!r} is not of the form KIND=RATE or KIND=RATE/DEVICES"
        raise Invalid(detail, hint=f"as in --fail rolled_back=0.05/3; kinds: {', '.join(kinds)}")
    made: dict[str, Any] = {"kind": kind, "max_rate": rate}
    return made | ({"min_devices": int(found[3])} if found[3] else {})


def gate(text: str, option: str = "--gate", *, required: bool = True) -> dict[str, Any]:
    """Read ``accuracy=0.05`` or ``latency_p95=1.2x``; ``?`` at the end: harm alone counts.

    Args:
        text: a metric, and how much worse than the control cohort it may be.
        option: which has it, for messages.
        required: whether it must be shown that it is not worse.

    Raises:
        Invalid: it does not have this form.
    """
    found = _GATE.fullmatch(text.strip())
    metrics = [metric.value for metric in Metric]
    metric = found[1].replace("-", "_") if found else ""
    if found is None or metric not in metrics:
        detail = f"{option}: {text!r} is not of the form METRIC=VALUE"
        hint = f"as in accuracy=0.05 or latency_p95=1.2x; metrics: {', '.join(metrics)}"
        raise Invalid(detail, hint=hint)
    value, unit = _number(found[2]), found[3]
    is_rate = metric in RATES
    if value is None or (unit == "x" and is_rate) or (unit == "%" and not is_rate):
        form = "points, as in 0.05 or 5%" if is_rate else "a factor above 1, as in 1.2x"
        detail = f"{option}: {found[2]}{unit} is no tolerance of {metric}"
        raise Invalid(detail, hint=f"it is {form}")
    worse = value / 100 if unit == "%" else value
    return {"metric": metric, "max_worse": worse, "required": required and not found[4]}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _share(text: str) -> float | None:
    value = _number(text.removesuffix("%"))
    if value is None:
        return None
    return value / 100 if text.endswith("%") else value
