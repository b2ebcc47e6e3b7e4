"""Experiments, and what their devices did."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchestrator.domain.judging.figures import DeviceFigures
from orchestrator.services.records import ExperimentRecord
from schemas.experiment import ArmName, ExperimentState


@dataclass(frozen=True, slots=True)
class Head:
    """Of an arm: devices that were assigned to it, and those of them that serve its version."""

    devices: int
    serving: int


@dataclass(frozen=True, slots=True)
class Observed:
    """What the arms' devices did. notes: what was left out, for size."""

    arms: Mapping[ArmName, Sequence[DeviceFigures]]
    notes: tuple[str, ...] = ()


class Experiments(Protocol):
    """Experiments.

    page: newest first. in_state: of these states, of one model or of all. members: the devices of a
    rollout. head: of a rollout. of_rollouts: the experiment of each rollout that belongs to one: an
    arm, or what brings the version that was kept. observed: before the experiment and since, of so
    many devices at most that each answer takes about a second.
    """

    def add(self, record: ExperimentRecord) -> None: ...
    def get(self, experiment_id: str) -> ExperimentRecord | None: ...
    def save(self, record: ExperimentRecord) -> None: ...
    def page(self, before: str | None, limit: int) -> Sequence[ExperimentRecord]: ...
    def in_state(
        self, states: Collection[ExperimentState], model: str | None = None
    ) -> Sequence[ExperimentRecord]: ...
    def members(self, rollout_id: str) -> frozenset[str]: ...
    def head(self, rollout_id: str) -> Head: ...
    def of_rollouts(self, rollouts: Collection[str]) -> Mapping[str, str]: ...
    def observed(self, record: ExperimentRecord, now: datetime) -> Observed: ...
