"""Operators' acts on rollouts: start, pause, resume, abort, retry."""

from __future__ import annotations

from orchestrator.domain.rollout import Happened, RolloutEvent
from orchestrator.errors import NotSigned
from orchestrator.services import actor
from orchestrator.services.moves import apply, cancel_executions, found
from orchestrator.services.ports import Clock, Signer, UnitOfWork
from orchestrator.services.records import RolloutRecord
from orchestrator.services.retries import retry
from orchestrator.services.rollout_view import view
from schemas.rollout import PauseReason, Retried, RetryRequest, RolloutView


class OperatingService:
    """What operators do to rollouts.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        signer: says what devices would install.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock, signer: Signer) -> None:
        self._uow = uow
        self._clock = clock
        self._signer = signer

    def operate(self, rollout_id: str, kind: RolloutEvent, reason: str = "") -> RolloutView:
        """Apply an operator's act; of a pause or an abort the reason is kept, and whose it was.

        Raises:
            IllegalTransition: the rollout's state does not allow it; the message says
                what it does allow.
            NotSigned: it is to start or go on, and nobody has signed its version, or the
                metadata has expired.
        """
        now = self._clock()
        with self._uow() as tx:
            before = found(tx, rollout_id, lock=True)
            if kind in {RolloutEvent.START, RolloutEvent.RESUME}:
                self._require_signed(before)
            because = f"by {actor.current()}" + (f": {reason}" if reason else "")
            happened = Happened(kind, PauseReason.OPERATOR)
            stops = kind in {RolloutEvent.PAUSE, RolloutEvent.ABORT}
            record = apply(tx, before, happened, now, because=because if stops else None)
            if (record.state, record.pause_reason) != (before.state, before.pause_reason):
                detail = {"version": f"{record.model}@{record.version}", "state": record.state}
                if reason:
                    detail["reason"] = reason
                tx.audit.add(f"rollout.{kind.value}", record.id, detail)
            if kind is RolloutEvent.ABORT:
                cancel_executions(tx, record, "the rollout was aborted", now)
        # Adding a large fleet up takes a while: not while others are kept from writing.
        with self._uow.read() as tx:
            return view(tx, record)

    def retry(self, rollout_id: str, request: RetryRequest) -> Retried:
        """Make another attempt on devices where a rollout that is not over came to nothing.

        Raises:
            IllegalTransition: it has not started, or is over.
            NotFound, Conflict: a device that is named is not in it, or did not fail; or none
                failed.
            NotSigned: as for ``operate``.
        """
        now = self._clock()
        with self._uow() as tx:
            record = found(tx, rollout_id, lock=True)
            self._require_signed(record)
            record, devices = retry(tx, record, request.devices, now)
        with self._uow.read() as tx:
            return Retried(devices=devices, rollout=view(tx, record))

    def _require_signed(self, record: RolloutRecord) -> None:
        """See that devices can install the version, now or after the next tick."""
        signer = self._signer
        fault = signer.fault()
        if fault is not None:
            # Every device would refuse it, and the gate would blame the version.
            msg = f"no device would install anything: {fault}"
            raise NotSigned(msg, hint="`argosy trust status` says what to do about it")
        if not (signer.releases() or signer.published(record.model, record.version)):
            msg = (
                f"{record.model}@{record.version} is not signed, and the release keys are not"
                " with the server: no device would install it"
            )
            raise NotSigned(msg, hint="sign it with: argosy trust sign --keys FOLDER")
