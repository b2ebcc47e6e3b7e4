"""Records of experiments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.experiment import ArmName, Difference, ExperimentSpec, ExperimentState


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRecord:
    """An experiment. rollout_a, rollout_b: that bring the two versions to their devices.

    kept: the arm that the other one's devices get, by ``kept_rollout``. differences, notes: of a
    stopped one, as of its end.
    """

    id: str
    spec: ExperimentSpec
    model: str
    state: ExperimentState
    rollout_a: str
    rollout_b: str
    reason: str | None = None
    kept: ArmName | None = None
    kept_rollout: str | None = None
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    requested_by: str
    created_at: datetime
    ended_at: datetime | None = None
