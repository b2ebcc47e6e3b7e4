"""What rollouts did with one device."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from orchestrator.domain.why_facts import Wave
from orchestrator.services.records import ExecutionRecord, RolloutRecord


class Past(Protocol):
    """Looks back over the rollouts of a device.

    parts: its executions with their rollouts, the newest first. others: rollouts that do not have
    it, newest first: those that are not over, and those of versions of models. waves: of several
    rollouts, without their evidence.
    """

    def parts(
        self, device_id: str, limit: int
    ) -> Sequence[tuple[ExecutionRecord, RolloutRecord]]: ...
    def others(
        self, device_id: str, versions: Mapping[str, int], limit: int
    ) -> Sequence[RolloutRecord]: ...
    def waves(self, rollouts: Collection[str]) -> Mapping[str, tuple[Wave, ...]]: ...
