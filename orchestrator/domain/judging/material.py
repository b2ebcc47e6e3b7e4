"""What a gate has to go by in one class: which devices count, and what they are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from orchestrator.domain.judging.figures import DeviceFigures
from orchestrator.domain.judging.metrics import (
    Readings,
    changes,
    disagreements,
    levels,
    pasts,
    told,
)
from schemas.gates import Gates, Metric, TelemetryGate


class Basis(StrEnum):
    """What devices of the wave are held against.

    CHANGES: what both cohorts changed by. LEVELS: what both do, of devices without a past.
    OWN_PAST: their own alone, for want of a control cohort. DISAGREEMENTS: nothing, the share
    itself counts. SILENCE: the control's, or the share itself. NOTHING: too little to judge.
    """

    CHANGES = "changes"
    LEVELS = "levels"
    OWN_PAST = "own_past"
    DISAGREEMENTS = "disagreements"
    SILENCE = "silence"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Material:
    """Of a gate in a class.

    treated, control: of the devices that count; of SILENCE 1 for a silent one and 0 for each other.
    control is None where there is none, or too little. promising: what is too little yet may grow
    to be enough, for there are devices enough, and data of some. note: who does not count, what
    is missing.
    """

    gate: TelemetryGate
    device_class: str
    basis: Basis
    treated: Readings
    control: Readings | None
    promising: bool = False
    note: str = ""

    @property
    def usable(self) -> bool:
        """Whether there is enough to judge."""
        return self.basis is not Basis.NOTHING


def gather(
    gate: TelemetryGate,
    device_class: str,
    treated: Sequence[DeviceFigures],
    control: Sequence[DeviceFigures],
    gates: Gates,
) -> Material:
    """Find what a gate can go by: a comparison of changes before one of levels, that before none.

    Args:
        gate: which.
        device_class: of all the devices here.
        treated: of the wave.
        control: of the control cohort.
        gates: how many devices and inferences it takes.
    """
    least, most = gates.min_inferences, gates.min_devices

    def found(basis: Basis, one: Readings, other: Readings | None = None) -> Material:
        enough = other if other is not None and len(other) >= most else None
        note = _note(one, other, least, most)
        promising = _promising(gate.metric, treated, control, gates)
        return Material(gate, device_class, basis, one, enough, promising, note)

    if gate.metric is Metric.SILENCE:
        one = _silence(treated)
        basis = Basis.SILENCE if len(one) >= most else Basis.NOTHING
        return found(basis, one, _silence(control))
    if gate.metric is Metric.SHADOW_AGREEMENT:
        one = disagreements(treated, least)
        return found(Basis.DISAGREEMENTS if len(one) >= most else Basis.NOTHING, one)
    one, other = (changes(gate.metric, some, least) for some in (treated, control))
    if len(one) >= most and len(other) >= most:
        return found(Basis.CHANGES, one, other)
    fresh, others = (levels(gate.metric, some, least) for some in (treated, control))
    if len(fresh) >= most and len(others) >= most:
        return found(Basis.LEVELS, fresh, others)
    return found(Basis.OWN_PAST if len(one) >= most else Basis.NOTHING, one, other)


def _promising(
    metric: Metric, treated: Sequence[DeviceFigures], control: Sequence[DeviceFigures], gates: Gates
) -> bool:
    """Whether a comparison that shows nothing, or cannot be made, may yet do so.

    Only what devices tell from now on is still to come: whoever has no past gets none, and is
    held against such of the control cohort alone. What nobody told of, as of labels, never comes.
    """
    least, most = gates.min_inferences, gates.min_devices
    if len(treated) < most:
        return False
    if metric is Metric.SILENCE:
        return any(device.silent for device in treated)
    if metric is Metric.SHADOW_AGREEMENT:
        return len(disagreements(treated, 1)) > 0
    if not any(told(metric, device) for device in treated):
        return False
    if pasts(metric, treated, least) >= most:
        return True
    if metric is Metric.CLASS_MIX:  # of which there is only the change
        return False
    return all(sum(d.pre is None for d in side) >= most for side in (treated, control))


def _silence(devices: Sequence[DeviceFigures]) -> Readings:
    values = np.array([float(device.silent) for device in devices])
    return Readings(values, np.zeros(len(devices)))


def _note(one: Readings, other: Readings | None, least: int, most: int) -> str:
    said = []
    if len(one) < most:
        said.append(f"{_devices(len(one))} of the wave can be judged, {most} are needed")
    elif other is not None and len(other) < most:
        kept = f"{_devices(len(other))} that kept their version"
        said.append(f"{kept} can be compared with, {most} are needed")
    if one.skipped:
        said.append(
            f"{_devices(one.skipped)} not counted: fewer than {least} inferences before or since,"
            " or without this figure"
        )
    return "; ".join(said)


def _devices(n: int) -> str:
    return f"{n} device" if n == 1 else f"{n} devices"
