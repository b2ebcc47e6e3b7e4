"""Why a rollout was stopped, in words."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.domain.actions import Action, MoveWave
from orchestrator.domain.rollout import WaveEvent
from schemas.evidence import sentence
from schemas.gates import Evidence

_STOPS = {WaveEvent.FAIL: "failed", WaveEvent.INCONCLUSIVE: "is inconclusive"}
_MOST = 5
"""Figures that are named; the wave keeps all of them."""


def because_of(actions: Sequence[Action]) -> str | None:
    """Why a rollout is stopped by these actions, in words; None if it is not."""
    for one in actions:
        if isinstance(one, MoveWave) and one.event in _STOPS:
            nobody = "nobody is left to judge by" + (f": {one.gone}" if one.gone else "")
            said = _figures(one.evidence) or nobody
            return f"wave {one.index + 1} {_STOPS[one.event]}: {said}"
    return None


def _figures(evidence: Sequence[Evidence]) -> str:
    binding = [e for e in evidence if e.binding]
    figures = [e for e in binding if e.ok is False] or [e for e in binding if e.ok is None]
    parts = [sentence(e) for e in figures[:_MOST]]
    if len(figures) > _MOST:
        parts.append(f"and {len(figures) - _MOST} more")
    return "; ".join(parts)
