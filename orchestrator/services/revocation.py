"""Taking a version back: no device gets it any more, and no name leads to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.domain.rollout import Happened, RolloutEvent
from orchestrator.services import aliases, rollouts
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import VersionRecord
from orchestrator.services.rollbacks import check_goal
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

        What is on its way to a device is withdrawn; a device that serves it already goes on, or
        with ``rollback`` is led to another version from the next tick on. A repeat changes
        nothing, the reason included, but for a rollback that was not asked for before.

        Raises:
            NotFound: there is no such version, or none to go back to.
            Invalid, Revoked, Conflict: devices cannot go back to the one that is named.
        """
        now = self._clock()
        with self._uow() as tx:
            record = found(tx, name, version)
            if request.to is not None:
                check_goal(tx, name, version, request.to)
            taken = _taken_back(record, request)
            if record.revoked:
                if taken != record:
                    tx.models.save(taken)
                    more = {"reason": request.reason, "to": request.to}
                    tx.audit.add("model.take_back", f"{name}@{version}", more)
                return version_view(tx, taken)
            record = replace(taken, revoked=True, revoked_reason=request.reason)
            tx.models.save(record)
            for alias, at in sorted(tx.models.aliases(name).items()):
                if at == version:
                    aliases.move(tx, name, alias, None, by=by, now=now)
            stopped = self._stop(tx, name, version, request.reason)
            data = {"model": name, "version": version, "change": "revoked", "by": by}
            tx.events.add("model", name, data | {"reason": request.reason, **stopped}, now)
            detail: dict[str, Any] = {"reason": request.reason, **stopped}
            if request.rollback:
                detail |= {"rollback": True, "to": request.to}
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


def _taken_back(record: VersionRecord, request: RevokeRequest) -> VersionRecord:
    if not request.rollback:
        return record
    return replace(record, take_back=True, take_back_to=request.to)
