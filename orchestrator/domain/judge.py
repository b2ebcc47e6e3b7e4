"""The verdict on a wave, from what its devices really reported.

Missing evidence is never a pass: it is waited for, then the verdict is inconclusive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.execution import FAILURES
from orchestrator.domain.judging.figures import Verdict
from schemas.gates import Evidence, Gates
from schemas.rollout import ExecState

__all__ = ["Judgement", "Served", "Verdict", "failure_rate", "judge"]


@dataclass(frozen=True, slots=True)
class Served:
    """What the devices of a wave that serve the new version inferred with it, added up.

    devices: how many serve it. least: the fewest inferences of one of them, None without any.
    n: inferences tried. errors: those of them that failed.
    """

    devices: int = 0
    least: int | None = None
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
        ExecState.UNKNOWN,
    }
)
"""States that say nothing of how the version fares on a device."""


def failure_rate(states: Mapping[ExecState, int]) -> tuple[float | None, int]:
    """Failed executions over those offered and seen, and how many those are."""
    seen = sum(n for state, n in states.items() if state not in _UNSEEN)
    failed = sum(n for state, n in states.items() if state in FAILURES)
    return (failed / seen if seen else None), seen


def judge(
    counts: Mapping[ExecState, int], served: Served, gates: Gates, since: datetime, now: datetime
) -> Judgement:
    """Judge a wave whose executions have all ended.

    Args:
        counts: its executions in each state.
        served: what those devices inferred that serve the version.
        gates: the thresholds.
        since: when the soak was over; ``evidence_seconds`` later nothing more is
            waited for.
        now: the time.
    """
    evidence = (
        _failures(counts, gates),
        _inferences(served, gates),
        _errors(served, gates),
        *_accuracy(served, gates),
    )
    if any(e.ok is False for e in evidence):
        return Judgement(Verdict.FAIL, evidence)
    if all(e.ok for e in evidence):
        return Judgement(Verdict.PASS, evidence)
    deadline = since + timedelta(seconds=gates.evidence_seconds)
    return Judgement(Verdict.WAIT if now < deadline else Verdict.INCONCLUSIVE, evidence)


def _failures(counts: Mapping[ExecState, int], gates: Gates) -> Evidence:
    rate, seen = failure_rate(counts)
    if rate is None and counts.get(ExecState.ALREADY_INSTALLED):
        rate = 0.0  # nothing had to be done, so nothing failed
    ok = None if rate is None else rate <= gates.max_failure_rate
    return _evidence("failure_rate", rate, gates.max_failure_rate, seen, ok)


def _inferences(served: Served, gates: Gates) -> Evidence:
    enough = served.least is not None and served.least >= gates.min_inferences
    ok = True if enough else None
    return _evidence("min_inferences", served.least, gates.min_inferences, served.devices, ok)


def _errors(served: Served, gates: Gates) -> Evidence:
    rate = served.errors / served.n if served.n else None
    ok = None if rate is None else rate <= gates.max_error_rate
    return _evidence("error_rate", rate, gates.max_error_rate, served.n, ok)


def _accuracy(served: Served, gates: Gates) -> tuple[Evidence, ...]:
    if gates.min_accuracy is None:
        return ()
    enough = served.labelled >= gates.min_inferences
    value = served.correct / served.labelled if served.labelled else None
    ok = value >= gates.min_accuracy if enough and value is not None else None
    return (_evidence("accuracy", value, gates.min_accuracy, served.labelled, ok),)


def _evidence(
    metric: str,
    value: float | None,
    threshold: float,
    n: int,
    ok: bool | None,  # noqa: FBT001 - three-valued
) -> Evidence:
    return Evidence(metric=metric, value=value, threshold=threshold, n=n, ok=ok)
