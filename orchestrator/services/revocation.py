"""Taking a version back: no device gets it any more, and no name leads to it."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.domain.rollout import Happened, RolloutEvent
from orchestrator.services import aliases, rollouts
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.versions import found, version_view
from schemas.model import ModelVersionView, RevokeRequest
from schemas.rollout import RolloutState

_STOPPED = (
    RolloutState.DRAFT,
    RolloutState.AWAITING_APPROVAL,
    RolloutState.RUNNING,
    RolloutState.PAUSED,
)
"""Rollouts that could still offer it; one that rolls back leads away from it already."""


class RevocationService:
    """Revokes versions.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    def revoke(self, name: str, version: int, request: RevokeRequest, by: str) -> ModelVersionView:
        """Revoke a version: in one transaction its aliases go and its rollouts are aborted.

        What is on its way to a device is withdrawn; a device that serves it already goes on.
        A repeat changes nothing, the reason included.

        Raises:
            NotFound: there is no such version.
        """
        now = self._clock()
        with self._uow() as tx:
            record = found(tx, name, version)
            if record.revoked:
                return version_view(tx, record)
            record = replace(record, revoked=True, revoked_reason=request.reason)
            tx.models.save(record)
            for alias, at in sorted(tx.models.aliases(name).items()):
                if at == version:
                    aliases.move(tx, name, alias, None, by=by, now=now)
            stopped = self._stop(tx, name, version, request.reason)
            data = {"model": name, "version": version, "change": "revoked", "by": by}
            tx.events.add("model", name, data | {"reason": request.reason, **stopped}, now)
            detail = {"reason": request.reason, **stopped}
            tx.audit.add("model.revoke", f"{name}@{version}", detail)
            return version_view(tx, record)

    def _stop(self, tx: Transaction, name: str, version: int, reason: str) -> dict[str, list[str]]:
        now, stopped = self._clock(), []
        for rollout in tx.rollouts.of_version(name, version, _STOPPED):
            because = f"{name}@{version} was revoked: {reason}"
            happened = Happened(RolloutEvent.ABORT)
            aborted = rollouts.apply(tx, rollout, happened, now, because=because)
            rollouts.cancel_executions(tx, aborted, because, now)
            stopped.append(rollout.id)
        return {"rollouts": stopped} if stopped else {}
