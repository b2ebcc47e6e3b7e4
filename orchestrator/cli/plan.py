"""A rollout's plan from command-line options."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.cli.authored import build
from orchestrator.errors import Invalid
from schemas.gates import Gates
from schemas.rollout import RolloutSpec, Shadow, WaveSpec

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

_SHADOW = {
    "shadow": "seconds",
    "shadow_agreement": "min_agreement",
    "shadow_compared": "min_compared",
    "shadow_cpu": "cpu_share",
    "shadow_max": "max_seconds",
}
_TIMES = {
    "offer": "offer_seconds",
    "step": "step_seconds",
    "straggler": "straggler_seconds",
    "attempts": "max_attempts",
    "retry_after": "retry_seconds",
}
"""Options with the fields of the plan itself that they set."""


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
    more: Mapping[str, float | None],
) -> RolloutSpec:
    """The plan that the options of ``argosy rollout start`` ask for.

    Args:
        model: its name.
        version: its version's number.
        waves: as ``parse_waves`` reads them.
        device_class: the target, with ``tags``.
        tags: the target.
        variant: one for all.
        more: gates, shadow and times by option, None where the default holds.

    Raises:
        Invalid: an option is wrong; the message names it.
    """
    fields = {"model": "MODEL", "version": "VERSION", "device_class": "--class", "tags": "--tag"}
    return build(
        RolloutSpec,
        {**fields, "variant": "--variant", **_named(_TIMES)},
        model=model,
        version=version,
        device_class=device_class,
        tags=tags,
        variant=variant,
        waves=parse_waves(waves),
        gates=build(Gates, _named(_GATES), **_chosen(_GATES, more)),
        shadow=_shadow(more),
        **_chosen(_TIMES, more),
    )


def _shadow(more: Mapping[str, float | None]) -> Shadow | None:
    chosen = _chosen(_SHADOW, more)
    if chosen and "seconds" not in chosen:
        first = next(option for option in _SHADOW if more.get(option) is not None)
        detail = f"{_option(first)}: nothing is tried as a shadow"
        raise Invalid(detail, hint="say for how long too, as in --shadow 10m")
    return build(Shadow, _named(_SHADOW), **chosen) if chosen else None


def _chosen(fields: Mapping[str, str], more: Mapping[str, float | None]) -> dict[str, float]:
    values = {field: more.get(option) for option, field in fields.items()}
    return {field: value for field, value in values.items() if value is not None}


def _named(fields: Mapping[str, str]) -> dict[str, str]:
    """Field → the option that sets it."""
    return {field: _option(name) for name, field in fields.items()}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
