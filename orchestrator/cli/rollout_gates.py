"""What a plan asks of its waves and devices, in a few lines, and what an edit changed of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from orchestrator.cli import console
from orchestrator.cli.rollout_plan_text import pace_text
from schemas.gates import RATIOS, FailureGate, Metric, TelemetryGate
from schemas.rollout import OnFailure, Probation, RolloutSpec
from schemas.rollout_view import RolloutView


def gate_facts(spec: RolloutSpec) -> list[tuple[str, str]]:
    """What decides whether a wave passes, what follows if not, and how a device decides itself."""
    found = [
        ("gates", telemetry_text(spec.gates.telemetry)),
        ("limits", ", ".join(_limits(spec))),
        ("verdict", ", ".join(_waits(spec))),
        ("on failure", on_failure_text(spec)),
        ("probation", probation_text(spec.probation)),
    ]
    if spec.approval:
        found.append(("approval", "by a second person"))
    return found


def gate_text(gate: TelemetryGate) -> str:
    """As in ``accuracy within 5 points``, ``latency_p95 within 1.5x (watched)``."""
    worse = gate.max_worse
    match gate.metric:
        case Metric.SILENCE:
            text = f"silence at most {100 * worse:g}%"
        case Metric.SHADOW_AGREEMENT:
            text = f"shadow_agreement at least {100 * (1 - worse):.6g}%"
        case metric if metric in RATIOS:
            text = f"{metric} within {worse:g}x"
        case metric:
            text = f"{metric} within {100 * worse:.6g} point{'' if worse == 0.01 else 's'}"  # noqa: PLR2004 - one point
    return text if gate.required else f"{text} (watched)"


def telemetry_text(gates: Sequence[TelemetryGate]) -> str:
    """Those that must be shown first, then those of which only harm counts."""
    ordered = sorted(gates, key=lambda gate: not gate.required)
    return ", ".join(map(gate_text, ordered)) or "none: no telemetry is compared"


def _limits(spec: RolloutSpec) -> list[str]:
    """As in ``at most 10% of devices fail``."""
    gates = spec.gates
    parts = [f"at most {_share(gates.max_failure_rate)} of devices fail"]
    parts += [_failure(one) for one in gates.failures]
    if gates.min_success_rate is not None:
        parts.append(f"at least {_share(gates.min_success_rate)} of devices serve it")
    parts.append(f"at most {_share(gates.max_error_rate)} of inferences fail")
    if gates.min_accuracy is not None:
        parts.append(f"at least {_share(gates.min_accuracy)} of answers are right")
    return parts


def _failure(gate: FailureGate) -> str:
    many = f" once {gate.min_devices} have ended" if gate.min_devices > 1 else ""
    return f"{gate.kind} at most {_share(gate.max_rate)}{many}"


def _waits(spec: RolloutSpec) -> list[str]:
    """As in ``soak 15 s``, ``evidence 1m 30s``."""
    gates = spec.gates
    return [
        f"soak {console.duration(gates.soak_seconds)}",
        f"evidence {console.duration(gates.evidence_seconds)}",
        f"{gates.min_inferences} inferences a device",
        f"{gates.min_devices} devices of a class",
        f"baseline {console.duration(gates.baseline_seconds)}",
        f"alpha {gates.alpha:g}",
    ]


def on_failure_text(spec: RolloutSpec) -> str:
    """What a wave that failed leads to."""
    if spec.on_failure is OnFailure.PAUSE:
        return "pause, and wait for an operator"
    before = "what each device served before"
    to = f"{spec.model}@{spec.rollback_to}" if spec.rollback_to is not None else before
    return f"roll back to {to}"


def probation_text(probation: Probation) -> str:
    """By what a device itself keeps the version or puts the former one back."""
    parts = [
        f"{probation.min_inferences} inferences",
        f"at most {_share(probation.max_error_rate)} of them failed",
        f"{probation.max_boots} starts",
    ]
    if probation.max_latency_ratio is not None:
        parts.append(f"{probation.max_latency_ratio:g}x the time before")
    if probation.max_memory_mb is not None:
        parts.append(f"{probation.max_memory_mb} MB more memory")
    parts.append(f"golden vectors after {console.duration(probation.max_seconds)}")
    return ", ".join(parts)


_PARTS: dict[str, Callable[[RolloutSpec], Sequence[str]]] = {
    "gates": lambda spec: [gate_text(one) for one in spec.gates.telemetry],
    "limits": _limits,
    "verdict": _waits,
    "on failure": lambda spec: [on_failure_text(spec)],
    "pace": lambda spec: (pace_text(spec) or "no limit").split(", "),
    "priority": lambda spec: [str(spec.priority)],
}


def changes(before: RolloutSpec, after: RolloutSpec) -> Iterator[str]:
    """What an edit changed, from what to what; what stayed is left out.

    As in ``gates: accuracy within 5 points -> accuracy within 10 points``.
    """
    for name, parts in _PARTS.items():
        was, now = parts(before), parts(after)
        gone = ", ".join(one for one in was if one not in now)
        come = ", ".join(one for one in now if one not in was)
        if gone or come:
            yield f"{name}: {gone or 'none'} -> {come or 'none'}"


def asked_text(view: RolloutView) -> str | None:
    """Who started a rollout that waits for an approval, as in ``ann, today 03:44: reason``."""
    asked = view.asked
    if asked is None:
        return view.requested_by
    at = "" if asked.at is None else f", {console.local_time(asked.at)}"
    reason = f": {console.clean(asked.reason)}" if asked.reason else ""
    return f"{console.clean(asked.name or view.requested_by or 'somebody')}{at}{reason}"


def _share(share: float) -> str:
    return f"{100 * share:.6g}%"
