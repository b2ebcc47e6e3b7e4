"""Why a rollout was stopped, in words."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.domain.actions import Action, MoveWave
from orchestrator.domain.rollout import WaveEvent
from schemas.gates import Evidence


def because_of(actions: Sequence[Action]) -> str | None:
    """Why a rollout is paused by these actions, in words; None if it is not."""
    for one in actions:
        if isinstance(one, MoveWave) and one.event in _STOPS:
            figures = [e for e in one.evidence if e.ok is False]
            figures = figures or [e for e in one.evidence if e.ok is None]
            said = "; ".join(_figure(e) for e in figures) or "nobody is left to judge by"
            return f"wave {one.index + 1} {_STOPS[one.event]}: {said}"
    return None


_STOPS = {WaveEvent.FAIL: "failed", WaveEvent.INCONCLUSIVE: "is inconclusive"}


def _figure(evidence: Evidence) -> str:
    name = evidence.metric.replace("_", " ")
    limit = "at most" if evidence.metric.endswith("_rate") else "at least"
    value = "has no data" if evidence.value is None else f"{evidence.value:.4g}"
    return f"{name} {value}, {limit} {evidence.threshold:.4g} is asked for"
