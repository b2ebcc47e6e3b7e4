"""Operators' acts on rollouts. ``domain.acts`` has the table of what is allowed when."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.domain import acts
from orchestrator.domain.acts import Act
from orchestrator.domain.rollout import ROLLOUT_TERMINAL, Happened, Refuse, RolloutEvent
from orchestrator.errors import IllegalTransition, Invalid, NotSigned
from orchestrator.services import actor, promoting, resuming, rollbacks
from orchestrator.services.act_notes import notes
from orchestrator.services.approving import check_another
from orchestrator.services.editing import activated
from orchestrator.services.moves import announce, apply, cancel_executions, found, unreadable
from orchestrator.services.ports import Clock, Signer, Transaction, UnitOfWork
from orchestrator.services.records import RolloutRecord
from orchestrator.services.repeats import check_revision, repeated
from orchestrator.services.retries import retry
from orchestrator.services.rollout_view import view
from orchestrator.services.taking_place import take_place
from schemas.rollout import PauseReason, RolloutState
from schemas.rollout_view import OperateRequest, Retried, RetryRequest, RolloutView

_SENDS = frozenset({Act.START, Act.APPROVE, Act.RESUME, Act.PROMOTE})
"""Acts after which devices are offered the version."""

_WITHOUT_PLAN = frozenset({Act.PAUSE, Act.ABORT, Act.ROLLBACK})
"""Acts that ask nothing of a rollout's plan, so that one that cannot be read can be stopped."""


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

    def operate(
        self,
        rollout_id: str,
        act: Act,
        said: OperateRequest,
        revisions: Collection[int] | None = None,
    ) -> RolloutView:
        """Apply an operator's act; a repeat of one changes nothing, and the answer's notes say so.

        Why it was done is kept, and by whom: with the rollout where it stops it, in the audit log
        always.

        Args:
            rollout_id: which.
            act: what is to be done.
            said: why, and what belongs to some acts.
            revisions: the rollout must be at one of these, unless it is done already; None for
                at any.

        Raises:
            IllegalTransition: its state does not allow it; or its plan cannot be read.
            PreconditionFailed: it was changed since.
            Invalid: what was said belongs to another act; or a rollback to a newer version.
            NotFound, Revoked, Conflict: the version of a rollback cannot be had, or none is named
                and nothing is known to go back to.
            Forbidden: who asked for the approval cannot give it.
            NotSigned: it is to start or go on, and nobody has signed its version, or the
                metadata has expired.
        """
        _check_said(act, said)
        now = self._clock()
        with self._uow() as tx:
            record = found(tx, rollout_id, lock=True)
            note = repeated(tx, record, act, said, now)
            if note is None and _changes(record, act):
                check_revision(record, revisions)
                self._check(record, act)
                record = _act(tx, record, act, said, now)
            elif note is None:
                before = record
                if act is Act.ROLLBACK:
                    record = _other_goal(tx, record, said, revisions, now)
                same = record is before
                note = f"nothing was changed: it is {record.state} already" if same else None
        # Adding a large fleet up takes a while: not while others are kept from writing.
        with self._uow.read() as tx:
            seen = view(tx, record)
            return seen.model_copy(update={"notes": notes(seen, act, note)})

    def retry(
        self, rollout_id: str, request: RetryRequest, revisions: Collection[int] | None = None
    ) -> Retried:
        """Make another attempt on devices where a rollout that is not over came to nothing.

        Raises:
            IllegalTransition: it has not started, or is over.
            NotFound, Conflict: a device that is named is not in it, or did not fail; or none
                failed.
            NotSigned, PreconditionFailed: as for ``operate``.
        """
        now = self._clock()
        with self._uow() as tx:
            record = found(tx, rollout_id, lock=True)
            _check_readable(record)
            check_revision(record, revisions)
            self._require_signed(record)
            devices = retry(tx, record, request.devices, now)
        with self._uow.read() as tx:
            seen = view(tx, record)
        said = () if devices else ("what failed is being tried again already",)
        return Retried(devices=devices, rollout=seen.model_copy(update={"notes": said}))

    def _check(self, record: RolloutRecord, act: Act) -> None:
        """See that nothing but the state stands against an act."""
        if act not in _WITHOUT_PLAN:
            _check_readable(record)
        if act in _SENDS:
            self._require_signed(record)

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


def _changes(record: RolloutRecord, act: Act) -> bool:
    """Whether a rollout's state leaves an act something to do.

    Raises:
        IllegalTransition: it does not allow it.
    """
    found = acts.judge(act, record.state, is_rollback=record.takes_back is not None)
    if isinstance(found, Refuse):
        ended = act is Act.ROLLBACK and record.state in ROLLOUT_TERMINAL
        hint = acts.instead_of_rollback(record.model, record.version) if ended else None
        raise IllegalTransition(found.detail, hint=hint)
    return found


def _check_readable(record: RolloutRecord) -> None:
    why = unreadable(record)
    if why is not None:
        hint = f"say anew what can be edited (`argosy rollout edit {record.id} …`), or abort it"
        raise IllegalTransition(why, hint=hint)


def _check_said(act: Act, said: OperateRequest) -> None:
    if said.wave is not None and (act is not Act.PROMOTE or said.full):
        msg = "wave: names the one wave of a promotion"
        raise Invalid(msg)
    if said.to is not None and act is not Act.ROLLBACK:
        msg = f"to: names the version of a rollback, and this is to {act.value}"
        raise Invalid(msg)
    if said.full and act is not Act.PROMOTE:
        msg = f"full: belongs to a promotion, and this is to {act.value}"
        raise Invalid(msg)


def _act(
    tx: Transaction, before: RolloutRecord, act: Act, said: OperateRequest, now: datetime
) -> RolloutRecord:
    """Do what the table allows, and write down who did."""
    detail: dict[str, Any] = {"version": f"{before.model}@{before.version}"}
    because = f"by {actor.current()}" + (f": {said.reason}" if said.reason else "")
    match act:
        case Act.START:
            record = _start(tx, before, now)
        case Act.APPROVE:
            check_another(tx, before)
            agreed = replace(before, approved_by=actor.current())
            record = apply(tx, agreed, Happened(RolloutEvent.START), now)
            detail["requested_by"] = before.requested_by
        case Act.ABORT:
            record = _abort(tx, before, because, detail, now)
        case Act.ROLLBACK:
            record = _roll_back(tx, before, said, because, now)
            detail |= {"to": said.to} if said.to is not None else {}
        case Act.PROMOTE:
            record, waves = promoting.promote(tx, before, full=said.full, now=now)
            detail |= {"waves": waves, "full": said.full}
        case Act.ACTIVATE:
            tx.executions.restamp(before.id, now)  # whatever the clock said: they were before this
            active, differs = activated(before, now)
            record = _edit(tx, active, now)
            detail |= differs
        case Act.FINISH:
            record = _finish(tx, before, now)
        case _:
            record = _hold(tx, before, act, because, now)
    if act in {Act.START, Act.APPROVE} and (replaced := take_place(tx, record, now)):
        detail["replaces"] = list(replaced)
    detail["state"] = record.state
    if said.reason:
        detail["reason"] = said.reason
    tx.audit.add(f"rollout.{act.value}", record.id, detail)
    return record


def _start(tx: Transaction, before: RolloutRecord, now: datetime) -> RolloutRecord:
    asks = before.spec.approval
    event = RolloutEvent.REQUEST_APPROVAL if asks else RolloutEvent.START
    return apply(tx, replace(before, requested_by=actor.current()), Happened(event), now)


def _hold(
    tx: Transaction, before: RolloutRecord, act: Act, because: str, now: datetime
) -> RolloutRecord:
    """Pause it, or have it go on: one that failures paused only where its wave may pass now."""
    if act is Act.PAUSE:
        happened = Happened(RolloutEvent.PAUSE, PauseReason.OPERATOR)
        return apply(tx, before, happened, now, because=because)
    stopped = before.pause_reason is PauseReason.ERROR_THRESHOLD
    happened = Happened(RolloutEvent.RESUME, may_pass=stopped and resuming.may_pass(tx, before))
    return apply(tx, before, happened, now)


def _abort(
    tx: Transaction, before: RolloutRecord, because: str, detail: dict[str, Any], now: datetime
) -> RolloutRecord:
    """End it; what takes it back ends as well."""
    record = apply(tx, before, Happened(RolloutEvent.ABORT), now, because=because)
    cancel_executions(tx, record, "the rollout was aborted", now)
    if before.state is RolloutState.ROLLING_BACK:
        detail["rollbacks"] = rollbacks.stop(tx, record, f"{record.id} was aborted {because}", now)
    return record


def _roll_back(
    tx: Transaction, before: RolloutRecord, said: OperateRequest, because: str, now: datetime
) -> RolloutRecord:
    """Stop it now; ``services.rolling_back`` leads devices back from the next tick on."""
    to = said.to if said.to is not None else before.spec.rollback_to
    if to is not None:
        rollbacks.check_goal(tx, before.model, before.version, to)
    else:
        rollbacks.check_leads(tx, before)
    turned = replace(before, back_to=to)
    record = apply(tx, turned, Happened(RolloutEvent.ROLL_BACK), now, because=because)
    rollbacks.end_in_flight(tx, record, now)
    return record


def _other_goal(
    tx: Transaction,
    before: RolloutRecord,
    said: OperateRequest,
    revisions: Collection[int] | None,
    now: datetime,
) -> RolloutRecord:
    """Lead those to another version that no rollback has yet; a repeat changes nothing.

    Raises:
        IllegalTransition: it is over.
        PreconditionFailed: it was changed since.
    """
    if said.to in {None, before.back_to}:
        return before
    check_revision(before, revisions)
    if before.state is not RolloutState.ROLLING_BACK:
        msg = f"{before.id} was rolled back already: nothing is led to {before.model}@{said.to}"
        hint = f"start a rollout of it: argosy rollout start {before.model}@{said.to}"
        raise IllegalTransition(msg, hint=hint)
    rollbacks.check_goal(tx, before.model, before.version, said.to or 0)
    record = _edit(tx, replace(before, back_to=said.to), now)
    detail = {"version": f"{record.model}@{record.version}", "to": said.to, "state": record.state}
    more = {"reason": said.reason} if said.reason else {}
    tx.audit.add("rollout.rollback", record.id, detail | more)
    return record


def _finish(tx: Transaction, before: RolloutRecord, now: datetime) -> RolloutRecord:
    """Let nobody join any more; it is over when its waves have passed."""
    return _edit(tx, replace(before, spec=before.spec.model_copy(update={"dynamic": False})), now)


def _edit(tx: Transaction, record: RolloutRecord, now: datetime) -> RolloutRecord:
    """Save what changed without a change of state."""
    edited = replace(record, revision=record.revision + 1)
    tx.rollouts.save(edited)
    announce(tx, edited, now)
    return edited
