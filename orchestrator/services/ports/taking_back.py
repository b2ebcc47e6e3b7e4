"""What is known of versions that are taken back."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from orchestrator.domain.taking_back import Standing
from orchestrator.services.records import RolloutRecord, TakenBack


class TakingBack(Protocol):
    """Devices that serve what is taken back.

    turned: rollouts that roll back, and those that were rolled back since a time and whose version
    nobody has shipped anew. revoked: versions to be taken back everywhere. rollbacks: those that
    there are, oldest first. members: device → version to lead it to, of those that no rollback
    has; only to a version that is older and can be run. busy: in the rollbacks, executions that
    are not over and whose device is there. left: who serves the version still, counted.
    """

    def turned(self, since: datetime) -> Sequence[RolloutRecord]: ...
    def revoked(self) -> Sequence[TakenBack]: ...
    def rollbacks(self, taken: TakenBack) -> Sequence[RolloutRecord]: ...
    def members(self, taken: TakenBack, limit: int) -> Mapping[str, int]: ...
    def busy(self, taken: TakenBack) -> int: ...
    def left(self, taken: TakenBack) -> Mapping[Standing, int]: ...
