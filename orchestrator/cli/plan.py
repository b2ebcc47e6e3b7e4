"""A rollout's plan from command-line options."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.cli.authored import build
from orchestrator.errors import Invalid
from schemas.rollout import Gates, RolloutSpec, WaveSpec

MAX_WAVES = 50

_GATES = {
    "min_accuracy": "min_accuracy",
    "max_error_rate": "max_error_rate",
    "max_failure_rate": "max_failure_rate",
    "min_inferences": "min_inferences",
    "soak": "soak_seconds",
    "evidence": "evidence_seconds",
}
"""Options with the gates that they set."""


def parse_waves(text: str) -> tuple[WaveSpec, ...]:
    """Read ``1,10%,100%``: counts of devices and percentages of the whole target.

    Raises:
        Invalid: it does not have this form.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MAX_WAVES:
        detail = f"--waves: {len(parts)} waves are more than {MAX_WAVES}"
        raise Invalid(detail)
    return tuple(_wave(part) for part in parts)


def _wave(text: str) -> WaveSpec:
    number = text.removesuffix("%").strip()
    try:
        if text.endswith("%"):
            return WaveSpec(percent=float(number))
        return WaveSpec(count=int(number))
    except ValueError:
        detail = f"--waves: {text!r} is neither a count of devices nor a percentage up to 100%"
        raise Invalid(detail, hint="as in --waves 1,10%,100%") from None


def rollout_spec(
    model: str,
    version: int,
    *,
    waves: str,
    device_class: str | None,
    tags: tuple[str, ...],
    variant: str | None,
    gates: Mapping[str, float | None],
) -> RolloutSpec:
    """The plan that the options of ``argosy rollout start`` ask for.

    Args:
        model: its name.
        version: its version's number.
        waves: as ``parse_waves`` reads them.
        device_class: the target, with ``tags``.
        tags: the target.
        variant: one for all.
        gates: by option, None where the default holds.

    Raises:
        Invalid: an option is wrong; the message names it.
    """
    chosen = {_GATES[name]: value for name, value in gates.items() if value is not None}
    names = {gate: f"--{option.replace('_', '-')}" for option, gate in _GATES.items()}
    fields = {"model": "MODEL", "version": "VERSION", "device_class": "--class", "tags": "--tag"}
    return build(
        RolloutSpec,
        {**fields, "variant": "--variant"},
        model=model,
        version=version,
        device_class=device_class,
        tags=tags,
        variant=variant,
        waves=parse_waves(waves),
        gates=build(Gates, names, **chosen),
    )
