"""Rollouts as operators see them: plan, start, pause, resume, abort, retry, look."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from orchestrator.domain.acts import Act
from orchestrator.services.editing import EditingService
from orchestrator.services.moves import (
    announce,
    announce_execution,
    apply,
    cancel_executions,
    end_executions,
    found,
    move_execution,
    moved_execution,
)
from orchestrator.services.operating import OperatingService
from orchestrator.services.planning import PlanningService
from orchestrator.services.ports import Clock, Signer, UnitOfWork
from orchestrator.services.records import Among
from orchestrator.services.rollout_standing import standings
from orchestrator.services.rollout_view import execution_views, foresight, head
from schemas.rollout import ExecState, RolloutSpec
from schemas.rollout_view import (
    ExecutionView,
    OperateRequest,
    Retried,
    RetryRequest,
    RolloutEdit,
    RolloutView,
)

__all__ = [
    "RolloutService",
    "announce",
    "announce_execution",
    "apply",
    "cancel_executions",
    "end_executions",
    "found",
    "move_execution",
    "moved_execution",
]


class RolloutService:
    """What the API does with rollouts.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        signer: says what devices would install.
        rest: sleeps so many seconds, between portions of a large plan.
        transfer_rate: bytes a second that the server sends at most; None is without limit.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        signer: Signer,
        rest: Callable[[float], None] = time.sleep,
        transfer_rate: int | None = None,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._operating = OperatingService(uow, clock, signer)
        self._editing = EditingService(uow, clock)
        self._planning = PlanningService(uow, clock, rest, transfer_rate)
        self._transfer_rate = transfer_rate

    def plan(self, spec: RolloutSpec, only: Collection[str] | None = None) -> RolloutView:
        """Make a draft: see ``PlanningService.plan``."""
        return self._planning.plan(spec, only)

    def tick(self) -> None:
        """Remove what was left of plans: see ``PlanningService.tick``."""
        self._planning.tick()

    def get(self, rollout_id: str) -> RolloutView:
        """One rollout with its waves and executions, of a large one not all."""
        now = self._clock()
        with self._uow.read() as tx:
            return foresight(tx, found(tx, rollout_id), now, self._transfer_rate)

    def page(self, before: str | None, limit: int) -> Sequence[RolloutView]:
        """Rollouts, newest first, without their waves."""
        with self._uow.read() as tx:
            records = tx.rollouts.page(before, limit)
            many = tx.rollouts.wave_counts([one.id for one in records]) if records else {}
            more = standings(tx, records)
            return [
                head(one).model_copy(update={"wave_count": many.get(one.id)} | more.get(one.id, {}))
                for one in records
            ]

    def executions(
        self,
        rollout_id: str,
        after: str | None,
        limit: int,
        *,
        states: Collection[ExecState] = (),
        wave: int | None = None,
    ) -> Sequence[ExecutionView]:
        """Devices of a rollout by the id of their execution, from after the cursor."""
        with self._uow.read() as tx:
            record = found(tx, rollout_id)
            among = Among(rollout_id=rollout_id, wave=wave, states=frozenset(states))
            return execution_views(tx, record, tx.executions.page(among, after, limit))

    def operate(
        self,
        rollout_id: str,
        act: Act,
        reason: str = "",
        *,
        to: int | None = None,
        full: bool = False,
        wave: int | None = None,
        revisions: Collection[int] | None = None,
    ) -> RolloutView:
        """Apply an operator's act: see ``OperatingService.operate``."""
        said = OperateRequest(reason=reason, to=to, full=full, wave=wave)
        return self._operating.operate(rollout_id, Act(act), said, revisions)

    def edit(
        self, rollout_id: str, change: RolloutEdit, revisions: Collection[int] | None
    ) -> RolloutView:
        """Change what is named: see ``EditingService.edit``."""
        return self._editing.edit(rollout_id, change, revisions)

    def retry(
        self, rollout_id: str, request: RetryRequest, revisions: Collection[int] | None = None
    ) -> Retried:
        """Make another attempt by hand: see ``OperatingService.retry``."""
        return self._operating.retry(rollout_id, request, revisions)
