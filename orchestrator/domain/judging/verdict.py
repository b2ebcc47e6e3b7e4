"""The verdict on a wave by its telemetry: each gate in each class of devices, and all together.

The rules, their levels and what they were measured to do stand in docs/architecture.md, "Verdict".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.domain.judging.evidence import compared, missing
from orchestrator.domain.judging.figures import Cohorts, DeviceFigures, Verdict
from orchestrator.domain.judging.material import Material, gather
from orchestrator.domain.judging.spending import next_look, spent
from schemas.gates import Evidence, Gates

__all__ = ["judge_telemetry", "next_look", "outcome"]


def judge_telemetry(
    cohorts: Cohorts, gates: Gates, *, look: int, last: bool
) -> tuple[Evidence, ...]:
    """Judge each telemetry gate in each class of devices.

    Args:
        cohorts: what the devices of the wave and of its control cohort did.
        gates: the rollout's; of them ``telemetry``, ``alpha``, ``min_devices`` and
            ``min_inferences`` are heeded.
        look: which look this is, from 1.
        last: whether none follows; it then spends what is left of alpha.

    Returns:
        One for each gate and class, by gate, then class. Where ``ok`` is False harm was shown;
        where it is None neither that nor the contrary, which binds only where the
        gate is required.
    """
    material = _material(cohorts, gates)
    alpha = spent(gates.alpha, look, last=last)
    # Which comparisons can be made follows from how much data there is, not from what it
    # says, so alpha is shared by those alone (Bonferroni).
    comparisons = sum(one.usable for one in material)
    found = [
        compared(one, alpha, comparisons, look, whole=gates.alpha)
        if one.usable
        else missing(one, look)
        for one in material
    ]
    return tuple(found)


def outcome(evidence: Sequence[Evidence], *, last: bool) -> Verdict:
    """The verdict that evidence leads to; what is missing never counts as shown.

    A gate that is not required keeps no wave from passing in the end. But until the last look
    it is waited for where more data may show harm: who passed at the first look, when hardly
    anything is known, would let nearly every version pass.

    Args:
        evidence: all that there is on the wave, of telemetry or not.
        last: whether nothing more is waited for.
    """
    binding = [one for one in evidence if one.binding]
    if any(one.ok is False for one in binding):
        return Verdict.FAIL
    if all(one.ok for one in binding) and (last or not any(one.open for one in evidence)):
        return Verdict.PASS
    return Verdict.INCONCLUSIVE if last else Verdict.WAIT


def _material(cohorts: Cohorts, gates: Gates) -> list[Material]:
    treated, control = _by_class(cohorts.treated), _by_class(cohorts.control)
    return [
        _told(gather(gate, name, treated.get(name, ()), control.get(name, ()), gates), treated)
        for gate in gates.telemetry
        # Without a single device there is still something to be shown.
        for name in (sorted(treated) or ([""] if gate.required else []))
    ]


def _told(material: Material, treated: Mapping[str, Sequence[DeviceFigures]]) -> Material:
    """With a word on devices that are not of this wave."""
    earlier = sum(one.earlier for one in treated.get(material.device_class, ()))
    if not earlier:
        return material
    said = f"{earlier} of them are of waves that have passed"
    return replace(material, note=f"{said}; {material.note}" if material.note else said)


def _by_class(devices: Sequence[DeviceFigures]) -> dict[str, list[DeviceFigures]]:
    classes: dict[str, list[DeviceFigures]] = {}
    # In one order, so that sums of the same numbers are the same to the last bit.
    for device in sorted(devices, key=lambda one: one.device):
        classes.setdefault(device.device_class, []).append(device)
    return classes
