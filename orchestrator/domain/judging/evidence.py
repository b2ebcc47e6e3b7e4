"""What is kept and shown of a gate's comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from orchestrator.domain.judging.compare import exact_high, exact_low, fisher
from orchestrator.domain.judging.decide import Cohort, decide
from orchestrator.domain.judging.material import Basis, Material
from orchestrator.domain.judging.metrics import Readings
from schemas.gates import MEANINGFUL, RATIOS, Evidence, Metric, TelemetryGate

_NOTES = {
    Basis.LEVELS: "of devices that had no version before, in both groups",
    Basis.OWN_PAST: "against their own past alone, for want of devices that kept their version",
}


@dataclass(frozen=True, slots=True)
class _Found:
    """Of a comparison, in the unit in which it was made. ok: as of ``Evidence``."""

    value: float
    low: float
    high: float
    control: float
    ok: bool | None


def compared(
    material: Material, alpha: float, comparisons: int, look: int, *, whole: float
) -> Evidence:
    """The evidence of a gate that has enough to go by.

    Args:
        material: of the gate in a class.
        alpha: that this look may spend.
        comparisons: among which it is shared when harm is looked for.
        look: which look, from 1.
        whole: alpha of all looks. That few enough devices are silent is shown by it: each look
            counts the same devices again, which is no new chance to be lucky.
    """
    harm = alpha / comparisons
    if material.basis is Basis.SILENCE:
        alpha = whole
        found = _silence(material, harm, alpha)
    else:
        found = _means(material, harm, alpha)
    note = "; ".join(one for one in (_NOTES.get(material.basis, ""), material.note) if one)
    shown = _evidence(material, _shown(found, material.gate), alpha, look, note)
    return shown.model_copy(update={"harm_alpha": harm})


def missing(material: Material, look: int) -> Evidence:
    """The evidence of a gate that has too little to go by."""
    nothing = _Found(math.nan, math.nan, math.nan, math.nan, None)
    return _evidence(material, nothing, None, look, material.note)


def tolerated(gate: TelemetryGate) -> float:
    """What is tolerated, in the unit of the comparison: points, or a logarithm."""
    return math.log(gate.max_worse) if gate.metric in RATIOS else gate.max_worse


def _means(material: Material, harm: float, harmless: float) -> _Found:
    control = None if material.control is None else _cohort(material.control)
    worse = tolerated(material.gate)
    shown = decide(_cohort(material.treated), control, worse, harm=harm, harmless=harmless)
    limits = shown.interval
    return _Found(
        float(limits.value),
        float(limits.low),
        float(limits.high),
        float(shown.control),
        _ok(bool(shown.harm), bool(shown.harmless)),
    )


def _cohort(readings: Readings) -> Cohort:
    return Cohort(readings.values, readings.noise, readings.counting)


def _silence(material: Material, harm: float, harmless: float) -> _Found:
    """Exact tests: of so few devices, and so rare an event, no mean is normal."""
    silent, n = round(float(material.treated.values.sum())), len(material.treated)
    share, worse = silent / n, material.gate.max_worse
    low, high = float(exact_low(silent, n, harm)), float(exact_high(silent, n, harmless))
    control = math.nan
    bad = low > worse
    if material.control is not None:
        others, m = round(float(material.control.values.sum())), len(material.control)
        control = others / m
        alone = fisher(silent, n, others, m) <= harm
        bad = alone and share - control >= MEANINGFUL * worse
    return _Found(share, low, high, control, _ok(bad, high < worse))


def _ok(harm: bool, harmless: bool) -> bool | None:  # noqa: FBT001 - the two answers
    return False if harm else (True if harmless else None)


def _shown(found: _Found, gate: TelemetryGate) -> _Found:
    """In the unit that people read: factors, and of agreement the share that agrees."""
    if gate.metric in RATIOS:
        numbers = (found.value, found.low, found.high, found.control)
        value, low, high, control = (math.exp(min(one, 700.0)) for one in numbers)
        return _Found(value, low, high, control, found.ok)
    if gate.metric is Metric.SHADOW_AGREEMENT:
        return _Found(1 - found.value, 1 - found.high, 1 - found.low, math.nan, found.ok)
    return found


def _evidence(
    material: Material, found: _Found, alpha: float | None, look: int, note: str
) -> Evidence:
    gate = material.gate
    agreement = gate.metric is Metric.SHADOW_AGREEMENT
    return Evidence(
        metric=gate.metric.value,
        value=_finite(found.value),
        threshold=1 - gate.max_worse if agreement else gate.max_worse,
        n=len(material.treated),
        ok=found.ok,
        device_class=material.device_class or None,
        low=_finite(found.low),
        high=_finite(found.high),
        control=_finite(found.control),
        devices=len(material.treated),
        controls=0 if material.control is None else len(material.control),
        alpha=alpha,
        look=look,
        binding=gate.required or found.ok is False,
        open=found.ok is None and material.promising,
        note=note[:300],
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
