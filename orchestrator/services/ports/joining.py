"""What is known of devices that a dynamic rollout may gain or lose."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from orchestrator.services.records import Moved, RolloutRecord, Target


class Joining(Protocol):
    """Devices that match a target and those of a rollout's waves that do not.

    dynamic: rollouts that run, and that devices may join. standing: those of a model, the paused
    ones too. joiners: devices that match and are in
    no execution, by id. returning: executions that were removed before anything was offered, and
    whose device matches and is there. leaving: those to which nothing was offered, and whose
    device does not match. take_back: returning ones into a wave.
    """

    def dynamic(self) -> Sequence[RolloutRecord]: ...
    def standing(self, model: str) -> Sequence[RolloutRecord]: ...
    def joiners(
        self, rollout_id: str, target: Target, now: datetime, limit: int
    ) -> Sequence[str]: ...
    def returning(
        self, rollout_id: str, target: Target, now: datetime, limit: int
    ) -> Sequence[str]: ...
    def leaving(
        self, rollout_id: str, target: Target, now: datetime, limit: int
    ) -> Sequence[str]: ...
    def take_back(self, ids: Sequence[str], wave: int, now: datetime) -> Sequence[Moved]: ...
