"""The verdict on a wave, from what its devices really reported.

Missing evidence is never a pass: it is waited for, then the verdict is inconclusive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from orchestrator.domain.execution import FAILURES
from schemas.rollout import Evidence, ExecState, Gates


class Verdict(StrEnum):
    """What is to be done with a wave that has soaked."""

    WAIT = "wait"
    PASS = "pass"  # noqa: S105 - a verdict, not a secret
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One device of the wave: its end, and what it inferred with the new version.

    n: inferences tried. errors: those of them that failed.
    """

    state: ExecState
    n: int = 0
    errors: int = 0
    labelled: int = 0
    correct: int = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict with the figures it rests on."""

    verdict: Verdict
    evidence: tuple[Evidence, ...]


_UNSEEN = frozenset(
    {
        ExecState.SCHEDULED,
        ExecState.OFFERED,
        ExecState.NO_VARIANT,
        ExecState.REMOVED,
        ExecState.SUPERSEDED,
        ExecState.CANCELLED,
        ExecState.ALREADY_INSTALLED,
    }
)
"""States that say nothing of how the version fares on a device."""


def failure_rate(states: Mapping[ExecState, int]) -> tuple[float | None, int]:
    """Failed executions over those offered and seen, and how many those are."""
    seen = sum(n for state, n in states.items() if state not in _UNSEEN)
    failed = sum(n for state, n in states.items() if state in FAILURES)
    return (failed / seen if seen else None), seen


def judge(
    facts: Mapping[str, DeviceFacts], gates: Gates, since: datetime, now: datetime
) -> Judgement:
    """Judge a wave whose executions have all ended.

    Args:
        facts: by device.
        gates: the thresholds.
        since: when the soak was over; ``evidence_seconds`` later nothing more is
            waited for.
        now: the time.
    """
    evidence = (
        _failures(facts, gates),
        _inferences(facts, gates),
        _errors(facts, gates),
        *_accuracy(facts, gates),
    )
    if any(e.ok is False for e in evidence):
        return Judgement(Verdict.FAIL, evidence)
    if all(e.ok for e in evidence):
        return Judgement(Verdict.PASS, evidence)
    deadline = since + timedelta(seconds=gates.evidence_seconds)
    return Judgement(Verdict.WAIT if now < deadline else Verdict.INCONCLUSIVE, evidence)


def _serving(facts: Mapping[str, DeviceFacts]) -> list[DeviceFacts]:
    good = {ExecState.SUCCEEDED, ExecState.ALREADY_INSTALLED}
    return [f for f in facts.values() if f.state in good]


def _failures(facts: Mapping[str, DeviceFacts], gates: Gates) -> Evidence:
    states: dict[ExecState, int] = {}
    for fact in facts.values():
        states[fact.state] = states.get(fact.state, 0) + 1
    rate, seen = failure_rate(states)
    if rate is None and states.get(ExecState.ALREADY_INSTALLED):
        rate = 0.0  # nothing had to be done, so nothing failed
    ok = None if rate is None else rate <= gates.max_failure_rate
    return _evidence("failure_rate", rate, gates.max_failure_rate, seen, ok)


def _inferences(facts: Mapping[str, DeviceFacts], gates: Gates) -> Evidence:
    serving = _serving(facts)
    least = min((f.n for f in serving), default=None)
    ok = True if least is not None and least >= gates.min_inferences else None
    return _evidence("min_inferences", least, gates.min_inferences, len(serving), ok)


def _errors(facts: Mapping[str, DeviceFacts], gates: Gates) -> Evidence:
    errors = sum(f.errors for f in _serving(facts))
    total = sum(f.n for f in _serving(facts))
    rate = errors / total if total else None
    ok = None if rate is None else rate <= gates.max_error_rate
    return _evidence("error_rate", rate, gates.max_error_rate, total, ok)


def _accuracy(facts: Mapping[str, DeviceFacts], gates: Gates) -> tuple[Evidence, ...]:
    if gates.min_accuracy is None:
        return ()
    labelled = sum(f.labelled for f in _serving(facts))
    correct = sum(f.correct for f in _serving(facts))
    enough = labelled >= gates.min_inferences
    value = correct / labelled if labelled else None
    ok = value >= gates.min_accuracy if enough and value is not None else None
    return (_evidence("accuracy", value, gates.min_accuracy, labelled, ok),)


def _evidence(
    metric: str,
    value: float | None,
    threshold: float,
    n: int,
    ok: bool | None,  # noqa: FBT001 - three-valued
) -> Evidence:
    return Evidence(metric=metric, value=value, threshold=threshold, n=n, ok=ok)
